"""Both guards as a fixture, and the lines of docs/src/spec/conformance.md for the faults that were played."""

import json
from collections import defaultdict
from importlib.metadata import version

import pytest
from support import Contract, Tasks, Threads

FAULTS = pytest.StashKey()


def pytest_configure(config):
    config.stash[FAULTS] = defaultdict(list)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    for mark in item.iter_markers("fault"):
        item.config.stash[FAULTS][mark.args[0]].append(report.passed)
    return report


def pytest_terminal_summary(terminalreporter, config):
    for fault, passed in config.stash[FAULTS].items():
        if all(passed):
            line = json.dumps({"language": "python", "engine": f"wasmtime {version('wasmtime')}", "fault": fault})
            terminalreporter.write_line(f"conformance {line}")


@pytest.fixture(params=[Threads, Tasks])
def side(request):
    side = request.param()
    yield side
    side.close()


@pytest.fixture
def contract():
    contract = Contract()
    yield contract
    contract.stop()

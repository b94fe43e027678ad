"""Both guards as a fixture, and the lines of docs/src/spec/conformance.md for the faults that were played."""

import json
import subprocess
from collections import defaultdict

import pytest
from support import AUTONOMY, ENGINE, Contract, Tasks, Threads, kept_port

POLICY = "package autonomy\n\ndefault allow := true\n"
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
            line = json.dumps({"language": "python", "engine": ENGINE, "fault": fault})
            terminalreporter.write_line(f"conformance {line}")


@pytest.fixture(params=[Threads, Tasks])
def side(request):
    side = request.param()
    yield side
    side.close()


@pytest.fixture
def contract():
    with kept_port() as port:
        contract = Contract(port)
        yield contract
        contract.stop()


@pytest.fixture
def node(tmp_path):
    """A node that is enrolled, with a bundle that is for it."""

    def autonomy(*arguments):
        command = [AUTONOMY, "--home", str(tmp_path / "home"), *arguments]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    (tmp_path / "source/policies").mkdir(parents=True)
    (tmp_path / "source/policies/allow.rego").write_text(POLICY)
    autonomy("key", "generate", "--out", "release.pem")
    (tmp_path / "release.pem.pub").rename(tmp_path / "release.pub.pem")
    bundle = ["--source", "source", "--name", "fleet/patrol", "--version", "1.0.0", "--enrollment-ref", "fleet-a"]
    autonomy("bundle", "build", *bundle, "--key", "release.pem", "--out", "bundle.tar")
    autonomy("node", "enroll", "--node-id", "robot-7", "--enrollment-ref", "fleet-a")
    autonomy("host", "token", "--out", "host.token")
    return tmp_path, autonomy

"""What the README and the example say, run as they are written: in an empty directory, by a user who has nothing but that."""

import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import time
import venv
from importlib.metadata import version
from pathlib import Path

import pytest
from support import ROOT, host, serving

PACKAGE = Path(__file__).resolve().parents[1]
README = (PACKAGE / "README.md").read_text(encoding="utf-8")
FENCED = re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)
BLOCKS = [code for language, code in FENCED if language == "python"]
[INSTALL] = [code for language, code in FENCED if language == "sh"]


@pytest.fixture(scope="session")
def user(tmp_path_factory):
    """The Python of a user who installed the wheel as the README says: pip finds out what it needs."""
    place = tmp_path_factory.mktemp("user")
    venv.create(place / "environment", symlinks=True)
    python = place / "environment/bin/python"
    wheel = f"autonomy_gate-{version('autonomy-gate')}-py3-none-any.whl"
    shutil.copy(ROOT / "target/bindings-python/dist" / wheel, place)
    env = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PIP_PYTHON": str(python),
        # In place of the registry: what all else is tested with.
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(Path(sys.prefix, "wheels")),
    }
    subprocess.run(["sh", "-ec", INSTALL], cwd=place, env=env, check=True)
    return python


def python(user, code, place, **env):
    done = subprocess.run(
        [user, "-W", "error", "-c", code],
        cwd=place,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_brings_what_the_readme_names(user, tmp_path):
    code = "from importlib.metadata import distributions; print(sorted(found.name for found in distributions()))"
    assert python(user, code, tmp_path) == "['autonomy-gate', 'h11', 'wasmtime']\n"


def test_the_first_lines(user, tmp_path):
    assert len(BLOCKS[0].splitlines()) <= 10
    said = python(user, BLOCKS[0], tmp_path)
    assert said.startswith("403 attestation: bundle_unverified: run `autonomy bundle verify`")
    assert list(tmp_path.iterdir()) == []


def test_a_node(user, node):
    place, autonomy = node
    with host(place) as (address, _):
        code = BLOCKS[1].replace("http://127.0.0.1:7778", address)
        said = python(user, code, place, AUTONOMY_NODE_ID="robot-7")
        audit_id = said.split()[-1]
        assert said == f"the decision is on disk: the tool may run, once {audit_id}\n"
        autonomy("node", "revoke", "--node-id", "robot-7")
        said = python(user, code, place, AUTONOMY_NODE_ID="robot-7")
    assert said.startswith('403 {"decision":"deny","reason":"attestation: enrollment_revoked"')
    assert "completed" in autonomy("audit", "get", audit_id)
    autonomy("wal", "verify")


def test_asyncio(user, tmp_path):
    assert python(user, BLOCKS[2], tmp_path) == "attestation: bundle_unverified\n"


def test_a_server(user, tmp_path):
    serve = """
import wsgiref.util
environ = {}
wsgiref.util.setup_testing_defaults(environ)
print(b"".join(app(environ, lambda status, headers: print(status))).decode())
"""
    status, body = python(user, BLOCKS[3] + serve, tmp_path).splitlines()
    assert status == "403 Forbidden"
    assert json.loads(body)["reason"] == "attestation: bundle_unverified"


def test_a_user_has_its_types(user, tmp_path):
    for name, code in {"first.py": BLOCKS[0], "node.py": BLOCKS[1]}.items():
        (tmp_path / name).write_text(code, encoding="utf-8")
    wrong = "from autonomy_gate import Gate\n\nGate(mode=1)\n"
    (tmp_path / "wrong.py").write_text(wrong, encoding="utf-8")

    def mypy(*names):
        program = [sys.executable, "-m", "mypy", "--strict", "--python-executable", user, *names]
        return subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, check=False)

    right = mypy("first.py", "node.py")
    assert right.returncode == 0, right.stdout
    assert 'Argument "mode" to "Gate" has incompatible type' in mypy("wrong.py").stdout


def test_every_block_is_run():
    assert [language for language, _ in FENCED] == ["python", "sh", "python", "python", "python"]


def test_the_example(user, node):
    place, autonomy = node
    with host(place) as (address, _):
        arguments = ["--bundle", "bundle.tar", "--key", "release.pub.pem", "--node-id", "robot-7"]
        arguments += ["--token-file", "host.token", "--host", address, "--port", "0"]
        program = [user, str(PACKAGE / "examples/server.py"), *arguments]
        with serving(program, r"http://127.0.0.1:(\d+)", cwd=place, stderr=subprocess.DEVNULL) as (port, _):

            def post():
                connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=60)
                connection.request("POST", "/arm/move")
                answer = connection.getresponse()
                body = answer.read().decode()
                connection.close()
                return answer.status, body

            status, body = post()
            assert (status, body[:6]) == (200, "moved ")
            audit_id = body.split()[1]
            limit = time.monotonic() + 60
            while "completed" not in (frames := autonomy("audit", "get", audit_id)):
                assert time.monotonic() < limit
            assert "post.arm.move" in frames
            autonomy("node", "revoke", "--node-id", "robot-7")
            status, body = post()
            assert (status, json.loads(body)["reason"]) == (403, "attestation: enrollment_revoked")
    assert "attestation: enrollment_revoked" in autonomy("audit", "get", json.loads(body)["audit_id"])

"""What a lab says of itself is read as its word: bounded, parsed as data, never followed, never repeated raw."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from harness import wait_until
from hostile_stage import Stage, new_token

pytestmark = pytest.mark.lab

LAB = "plugin: [ evil ]\ndefaults.device: linux\nnodes: [ h1 ]\n"
HOOKED = "defaults.netlab.up.post_start_lab: python3 evil.py\ndefaults.device: linux\nnodes: [ h1 ]\n"
ESCAPES = """
for line in (
    "\\x1b]0;owned\\x07\\x1b[31mred \\x1b[2J \\x9b31m {token}",
    "2026-05-27 12:34:56 | INFO | remote-lab-server | forged {token}",
    "\\r\\x08\\x0b{token}\\u202e",
    "node h1 is up",
    "node ../../{token} is up",
):
    print(line, flush=True)
"""
FORGED_DEVICES = """
import pathlib
import sys
import zipfile

# netlab's record is read by `netlab inspect`, whose answer this is: PYTHONPATH is ours by now.
import pickle


class Said:
    def __reduce__(self):
        code = "import os,sys; os.write(1, {answer!r}.encode()); os._exit(0)"
        return exec, (code,)


pathlib.Path("netlab.snapshot.pickle").write_bytes(pickle.dumps(Said()))
"""
LINKS = """
import os, pathlib, shutil

for name in ("netns_files", "netns.json", "node_files"):
    if os.path.isdir(name):
        shutil.rmtree(name)
    elif os.path.exists(name):
        os.unlink(name)
os.mkdir("netns_files")
os.symlink({secret!r}, "netns_files/id_ed25519")
os.symlink({secret!r}, "netns.json")
os.symlink({folder!r}, "node_files")
"""


def boot(stage: Stage, session_id: str, topology: str, evil: str) -> tuple[int, dict[str, object]]:
    answer = stage.send(session_id, {"topology.yml": topology.encode(), "evil.py": evil.encode()})
    return answer.status_code, answer.json()


def test_terminals_and_logs_are_not_fooled(stage: Stage, session_id: str) -> None:
    """Escape sequences stay out of the server's log, and lines cannot look like the server's own."""
    token = new_token()
    began = stage.server.log.stat().st_size
    status, _ = boot(stage, session_id, LAB, ESCAPES.replace("{token}", token))
    assert status == 200
    said = stage.server.log.read_bytes()[began:].decode()
    lines = [line for line in said.splitlines() if token in line]
    assert lines
    assert not [character for character in said if character != "\n" and not character.isprintable()]
    assert not [line for line in lines if line.startswith("2026-05-27 12:34:56")]


@pytest.mark.parametrize(
    "answer",
    [
        '[["r1\\u001b[31m", {"mgmt": {"ipv4": "127.0.0.1; id"}}]]',
        "[" * 100_000,
        '{"h1": 1}',
        '[["h1", []]]',
        '[["h1", {"a": NaN}]]',
        "\\ud800",
        "x" * 1000,
    ],
    ids=["escapes", "depth", "no list", "no device", "no number", "no text", "no JSON"],
)
def test_forged_devices_are_data_or_an_error(stage: Stage, session_id: str, answer: str) -> None:
    """Whatever the record of the lab makes of itself when it is read, inside: the answer is JSON, never a defect."""
    began = stage.server.log.stat().st_size
    status, body = boot(stage, session_id, HOOKED, FORGED_DEVICES.replace("{answer!r}", repr(answer)))
    assert status == 200 or body["code"] == "lab_boot_failed", body
    lab = stage.server.call("GET", "/lab", session_id)
    assert lab.status_code == 200
    json.loads(lab.text)
    log = stage.server.log.read_bytes()[began:].decode()
    assert "Traceback" not in log
    assert "\x1b" not in log


def test_links_to_the_host_are_not_followed(stage: Stage, session_id: str) -> None:
    """The login key, the plan and the folders of a lab may be links to the server's secrets: nobody reads there."""
    [secret] = stage.bait.files
    boot(stage, session_id, HOOKED, LINKS.format(secret=str(secret), folder=str(Path(secret).parent)))
    for path in ("/lab", "/lab/ssh-key", "/lab/state", "/lab/log", "/lab/devices"):
        assert stage.bait.loot["file"] not in stage.server.call("GET", path, session_id).text
    assert stage.server.call("GET", "/lab/ssh-key", session_id).status_code == 404


def test_endless_talk_is_cut(stage: Stage, session_id: str) -> None:
    """A lab that prints for ever fills neither the disk nor the server's memory."""
    evil = 'import sys\nfor _ in range(200):\n    sys.stdout.write(("x" * 99 + "\\n") * 1000)\n'
    boot(stage, session_id, LAB, evil)
    [log] = [path for path in stage.server.state_dir.glob("labs/*/boot.log") if stage.victim_lab not in str(path)][-1:]
    assert log.stat().st_size < 17 * 2**20
    assert stage.server.call("GET", "/healthz").status_code == 204


def test_a_boot_that_heeds_nothing_is_ended(stage: Stage) -> None:
    """A plugin that ignores signals, forks twice and sleeps holds its session's end up by nothing."""
    token = new_token()
    watch = stage.watch(token)
    session_id = stage.server.open_session()
    stage.server.wait_active(session_id)
    evil = (
        "import os, signal, sys, time\n"
        "for number in (1, 2, 3, 13, 15):\n    signal.signal(number, signal.SIG_IGN)\n"
        "if os.fork() == 0:\n    os.setsid()\n    os.fork()\n"
        f"    os.execvp('sh', ['sh', '-c', 'trap : TERM; while :; do sleep 9; done', 'hostile-{token}'])\n"
        "print('it hangs', flush=True)\ntime.sleep(900)\n"
    )
    files = {"topology.yml": LAB.encode(), "evil.py": evil.encode()}
    assert stage.send(session_id, files, headers={"Prefer": "respond-async"}).status_code == 202
    wait_until(lambda: "it hangs" in stage.server.call("GET", "/lab/log", session_id).text, "it hangs")
    stage.end(session_id)
    assert watch.findings() == []


def test_a_status_that_hangs_holds_nobody_up(stage: Stage, session_id: str) -> None:
    """A lab that sleeps when it is asked how it is has a sentence for its status, and its teardown is as fast."""
    assert boot(stage, session_id, LAB, "")[0] == 200
    sleeps = (
        "import pickle\nclass Sleeps:\n"
        "    def __reduce__(self):\n        return exec, ('import os, time; os.fork(); time.sleep(900)',)\n"
        "open('/lab/netlab.snapshot.pickle', 'wb').write(pickle.dumps(Sleeps()))\nprint('asleep')\n"
    )
    assert stage.inside(stage.attackers_lab(), "/usr/bin/python3", "-c", sleeps) == "asleep\n"

    def says() -> str:
        return str(stage.server.call("GET", "/lab", session_id).json()["netlab_status"])

    wait_until(lambda: "no answer" in says(), "the status hangs")
    assert stage.server.call("GET", "/healthz").status_code == 204

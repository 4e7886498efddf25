"""The quick way to a lab that runs: nothing is asked twice, and nothing written that nobody reads."""

from __future__ import annotations

from typing import Any

import pytest
from fakes import FakeRunner, wait_until, yaml_file

from remote_lab.core.manager import LabManager
from remote_lab.core.workspace import Upload, Workspaces
from remote_lab.errors import LabBootFailed, SessionNotFound, SessionWaiting, TopologyNotAllowed
from remote_lab.netlab.allowlist import Finding


@pytest.fixture
def session_id(manager: LabManager) -> str:
    """A session whose lab runs."""
    session_id = manager.open_session().session_id
    manager.desk.acquire(session_id, yaml_file(), [], reuse=True)
    return session_id


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the topologies that are written from now on."""
    names: list[str] = []
    write = Workspaces._write

    def note(self: Workspaces, lab_id: str, files: dict[str, bytes]) -> None:
        names.extend(files)
        write(self, lab_id, files)

    monkeypatch.setattr(Workspaces, "_write", note)
    return names


def test_the_upload_of_a_lab_that_runs_is_not_written(
    manager: LabManager, session_id: str, written: list[str], runner: FakeRunner
) -> None:
    """Its files are there; of the reference that is taken the database knows."""
    assert manager.desk.acquire(session_id, yaml_file(), [], reuse=True).reused
    assert written == []
    assert [kind for kind, _ in runner.calls] == ["boot"]
    manager.desk.release(session_id)
    manager.desk.release(session_id)
    manager.desk.acquire(session_id, yaml_file("nodes: [r1, r2]\n", "other.yml"), [], reuse=True)
    assert written == ["other.yml"]


def test_what_was_not_written_is_when_the_lab_has_gone_since(
    manager: LabManager, session_id: str, written: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lab ran when the upload came, and is down when it is decided what to do."""
    store = manager.workspaces.store

    def store_then_lose(*arguments: Any) -> Upload:
        upload = store(*arguments)
        manager.desk.destroy(session_id, force=True)
        wait_until(lambda: manager.workspaces.present() == [], "the lab is down")
        return upload

    monkeypatch.setattr(manager.workspaces, "store", store_then_lose)
    assert not manager.desk.acquire(session_id, yaml_file(), [], reuse=True).reused
    assert written == ["demo.yml"]
    [lab_id] = manager.workspaces.present()
    assert (manager.workspaces.directory(lab_id) / "demo.yml").read_text() == "nodes: [r1]\n"


def test_who_wants_a_lab_of_their_own_is_written_before_it_is_decided(
    manager: LabManager, session_id: str, written: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else who writes to the database waits for those files."""
    manager.desk.release(session_id)
    seen: list[list[str]] = []
    decide = manager.desk._decide

    def look_and_decide(*arguments: Any) -> Any:
        seen.append(list(written))
        return decide(*arguments)

    monkeypatch.setattr(manager.desk, "_decide", look_and_decide)
    assert not manager.desk.acquire(session_id, yaml_file(), [], reuse=False).reused
    assert seen[0] == written == ["demo.yml"]


@pytest.mark.parametrize("boots", [True, False], ids=["running", "failed"])
def test_who_waits_for_a_lab_whose_boot_is_over_is_not_held(
    manager: LabManager, session_id: str, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch, boots: bool
) -> None:
    """It may have ended after the last look of who follows it: no change is to come."""
    if not boots:
        runner.boot_fails = True
        manager.desk.release(session_id)
        with pytest.raises(LabBootFailed):
            manager.desk.acquire(session_id, yaml_file("nodes: [r1, r2]\n"), [], reuse=True)
    monkeypatch.setattr(manager.database.changes, "watch", lambda *_: pytest.fail("it is held"))
    assert manager.inspection.wait_for_lab(session_id, 60).state == ("running" if boots else "failed")


def test_who_is_not_trusted_is_refused_a_lab_that_runs(
    manager: LabManager, session_id: str, written: list[str], runner: FakeRunner
) -> None:
    """Somebody who is trusted may have booted it."""
    runner.refused = [Finding(line=1, column=1, what="plugin")]
    with pytest.raises(TopologyNotAllowed):
        manager.desk.acquire(session_id, yaml_file(), [], reuse=True)
    assert written == ["demo.yml"]
    assert len(manager.workspaces.present()) == 1


def test_the_lab_that_a_session_has_is_known_after_each_change(manager: LabManager) -> None:
    """It is asked of the database once for each."""
    session_id = manager.open_session().session_id
    waiting = manager.open_session().session_id
    assert manager.require_active(session_id) is None
    for name in ("demo.yml", "other.yml"):
        manager.desk.acquire(session_id, yaml_file(f"name: {name[:-4]}\nnodes: [r1]\n", name), [], reuse=True)
        assert manager.require_active(session_id) == manager.require_active(session_id) == name
        manager.desk.release(session_id)
    assert manager.desk.destroy(session_id, force=True)
    assert manager.require_active(session_id) is None
    with pytest.raises(SessionWaiting):
        manager.require_active(waiting)
    manager.end_session(session_id, "test")
    with pytest.raises(SessionNotFound, match="test"):
        manager.require_active(session_id)
    assert manager.require_active(waiting) is None

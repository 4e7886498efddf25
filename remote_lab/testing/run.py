"""The run's session and the labs of its tests: where they come from, and that they are given back.

Imported by the first fixture that needs a lab. How workers of xdist share the session is said in `shared.py`.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

import pytest
import requests

from remote_lab.client import DeviceInfoDto, RemoteLabClient, RemoteLabHTTPError
from remote_lab.client.address import address_of
from remote_lab.client.settings import REQUEST_TIMEOUT_SECONDS
from remote_lab.client.wire import Wire
from remote_lab.testing import shared, sigterm
from remote_lab.testing.progress import Telling, telling
from remote_lab.testing.settings import Settings, settings_of

_log = logging.getLogger("remote_lab.testing")


@dataclass
class LabOfTest:
    """The lab of a test, from the moment it is asked for; stays on the test's node when it is given back."""

    fixture_name: str
    client: RemoteLabClient
    topology: Path
    devices: list[DeviceInfoDto] = field(default_factory=list)
    """Empty until the lab is up."""


LAB_OF_TEST = pytest.StashKey[LabOfTest]()
"""In the stash of a test's node."""

_HELD_BY = pytest.StashKey[str]()
"""In the stash of the config: name of the lab fixture that has the lab now."""


@contextmanager
def client_of_the_run(config: pytest.Config, first_topology: Path | None) -> Iterator[RemoteLabClient]:
    """The run's session; a test that asks for it without there being one is skipped or fails with a sentence.

    The server is told the first topology that will be wanted, so that it can boot it while the session waits.
    """
    __tracebackhide__ = True
    settings = settings_of(config)._replace(first_topology=first_topology)
    way = _client_of_worker if hasattr(config, "workerinput") else _client_of_process
    no_longer = sigterm.heed()
    try:
        with telling(config) as tell, way(config, settings, tell) as client:
            yield client
    finally:
        no_longer()


@contextmanager
def lab_for_test(
    request: pytest.FixtureRequest, client: RemoteLabClient, topology: Path, reuse_lab: bool
) -> Iterator[list[DeviceInfoDto]]:
    """The lab of one test; fails at once for a test that has a lab already, which only a dynamic request can do."""
    __tracebackhide__ = True
    stash = request.config.stash
    if _HELD_BY in stash:
        pytest.fail(
            f"usage error: {request.node.nodeid} asks for the lab fixtures {stash[_HELD_BY]!r} and "
            f"{request.fixturename!r}, but there is one lab at a time. "
            "Ask for one of them, or make two tests of it.",
            pytrace=False,
        )
    stash[_HELD_BY] = request.fixturename or topology.name
    lab = LabOfTest(stash[_HELD_BY], client, topology)
    request.node.stash[LAB_OF_TEST] = lab
    try:
        if settings_of(request.config).session_id:
            reuse_lab = _held_already(client, topology) or reuse_lab
        lab.devices = client.acquire(topology, reuse_lab)
        try:
            yield lab.devices
        finally:
            client.release()
    finally:
        del stash[_HELD_BY]


def _held_already(client: RemoteLabClient, topology: Path) -> bool:
    """Tell whether whoever opened the session has this lab in it; fail when it is another one, which would block."""
    __tracebackhide__ = True
    status = client.status()
    if not status.running or status.ref_count == 0:
        return False
    if status.topology != topology.name:
        pytest.fail(
            f"This session holds the lab {status.topology} for whoever opened it, and {topology.name} cannot run "
            "beside it. Release that lab first, or run without REMOTE_LAB_SESSION_ID.",
            pytrace=False,
        )
    return True


@contextmanager
def _client_of_process(config: pytest.Config, settings: Settings, tell: Telling) -> Iterator[RemoteLabClient]:
    """The session of a run in one process."""
    __tracebackhide__ = True
    if settings.url:
        with _connected(settings, settings.url, tell) as client:
            yield client
        return
    from remote_lab.local import note_session

    run_dir = Path(tempfile.mkdtemp(prefix="remote-lab-run-"))
    try:
        with _url_of_run(settings, tell, run_dir, os.getpid()) as url, _connected(settings, url, tell) as client:
            note_session(run_dir, url, client.session_id)
            yield client
    finally:
        shutil.rmtree(run_dir, ignore_errors=True)


@contextmanager
def _client_of_worker(config: pytest.Config, settings: Settings, tell: Telling) -> Iterator[RemoteLabClient]:
    """The session of a run with xdist: opened by the first worker, joined by one that takes the place of a dead one."""
    __tracebackhide__ = True
    about = shared.workerinput(config)
    run_dir = Path(about["remote_lab_run_dir"])
    if not run_dir.parent.is_dir():
        pytest.fail(f"Labs need xdist workers on the machine of the run (-n, --tx popen): no {run_dir}.", pytrace=False)
    shared.make_folder(run_dir)
    place = shared.place_of_session(run_dir)
    with (
        shared.turn(run_dir, about["workerid"]) as predecessor_died,
        _url_of_run(settings, tell, place, about["remote_lab_run_pid"]) as url,
        _joined_or_opened(settings, url, tell, place, predecessor_died) as client,
    ):
        yield client


@contextmanager
def _url_of_run(settings: Settings, tell: Telling, run_dir: Path, run_pid: int) -> Iterator[str]:
    """The server that is set, or one on this machine that is gone when the process `run_pid` is, however that ends."""
    __tracebackhide__ = True
    if settings.url:
        yield settings.url
        return
    from remote_lab.local import LocalServerFailed, NoLabsHere, obtain

    try:
        server = obtain(run_dir, run_pid, settings.environment, tell.say)
    except NoLabsHere as error:
        if settings.required:
            raise pytest.fail.Exception(str(error), pytrace=False) from None
        raise pytest.skip.Exception(str(error)) from None
    except LocalServerFailed as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None
    try:
        yield server.url
    finally:
        server.stop()


@contextmanager
def _joined_or_opened(
    settings: Settings, url: str, tell: Telling, place: Path, predecessor_died: bool
) -> Iterator[RemoteLabClient]:
    """The session that is noted in a folder, or a new one, which is noted there until it ends."""
    __tracebackhide__ = True
    from remote_lab.local import note_session, noted_session

    place.mkdir(mode=0o700, exist_ok=True)
    noted = None if settings.session_id else noted_session(place)
    if noted is not None:
        try:
            client = _client(settings, url, tell, noted[1])
        except RemoteLabHTTPError as error:
            if error.response.status_code != HTTPStatus.NOT_FOUND:
                raise
            tell.say(f"the session of this run is gone, opening another: {error.detail}")
        else:
            with client:
                if predecessor_died:
                    # How often it had acquired the lab is not known.
                    client.destroy(force=True)
                yield client
            return
    with _connected(settings, url, tell) as client:
        if not settings.session_id:
            note_session(place, url, client.session_id)
        yield client
    (place / shared.SESSION).unlink(missing_ok=True)


@contextmanager
def _connected(settings: Settings, url: str, tell: Telling) -> Iterator[RemoteLabClient]:
    """A session, or a failure that says in one sentence why there is none."""
    __tracebackhide__ = True
    try:
        client = _client(settings, url, tell, settings.session_id)
    except (requests.RequestException, TimeoutError, ValueError) as error:
        raise pytest.fail.Exception(f"No session: {error}", pytrace=False) from None
    with client:
        yield client


def _client(settings: Settings, url: str, tell: Telling, session_id: str | None) -> RemoteLabClient:
    # What is not set is said to be so: the client would look into the environment, which an option may have beaten.
    return RemoteLabClient(
        url,
        settings.request_timeout,
        settings.session_timeout,
        settings.acquisition_timeout,
        token=settings.token or "",
        session_id=session_id or "",
        purpose=settings.purpose or "",
        ci_job=settings.ci_job or "",
        heartbeat=settings.heartbeat_seconds,
        topology=settings.first_topology,
        live=tell.live,
    )


def end_session(settings: Settings, url: str, session_id: str) -> None:
    """End a session that no process uses any more; one that has ended already is fine."""
    wire = Wire(address_of(url, settings.token), settings.request_timeout or REQUEST_TIMEOUT_SECONDS)
    try:
        wire.call("DELETE", f"/session/{session_id}", (204, 404))
    except requests.RequestException as error:
        _log.warning("The session of this run could not be ended, it ends when it is stale: %s", error)
    finally:
        wire.close()

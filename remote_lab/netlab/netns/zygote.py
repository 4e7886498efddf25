"""The command `netlab-boot` in a pod: `netlab up` and one more netlab call, with all imports done before anybody asks.

Standard input is a socket to the server, which writes a line of JSON,
`{"files": {PATH: [BASE64, MODE]}, "calls": [[ARGUMENT, ...], [ARGUMENT, ...]]}`, or goes away, which ends this process.
With the argument `early`, a newline from here says that everything is imported. Standard output is the boot log.

Procedure, with Z this process:
1. Z forks R, which has little in memory and will run `netns-lab`; then Z imports netlab and reads netlab's defaults.
2. Z writes the files of the upload, if they are not there already, and forks U, which runs the first call.
3. When U starts `netlab` or `netns-lab`, Z or R is asked to fork a process for it, so that nothing is imported again.
   Neither has run anything of the upload, so what they fork is as good as a new process.
4. When U knows the names of the nodes, R is told to begin with them, see `early.py`. When U is about to start them, Z
   is told, and runs the second call: netlab's record of the lab is complete by then.
5. When U succeeded, Z writes a newline to the socket, then what the second call printed; if that failed, or the record
   is another one since, it is run again, with the socket as its standard output. Z ends as it did.

netlab does nothing else than it does as a command; see `netlab_command.py`.
"""

from __future__ import annotations

import base64
import gc
import importlib
import json
import os
import pkgutil
import selectors
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from remote_lab.netlab.netns import early, lab, nodes, runtime
from remote_lab.netlab.netns.credentials import make_keys

_UP = ["netns-lab", "up"]
_TOLD = "told"
"""In place of a command: what R and Z are told without being asked for anything."""
_RECORD = Path("netlab.snapshot.pickle")
_NETLAB = "/opt/remote-lab/bin/netlab"
_DEFAULTS = "package:topology-defaults.yml"
_POD_DEFAULTS = "/etc/netlab/defaults.yml"
_MAX_MESSAGE = 2**20
_MAX_COMPLAINT = 2**14
_MODULES = (
    "netsim.cli.up",
    "netsim.cli.create",
    "netsim.cli.initial",
    "netsim.cli.inspect",
    "netsim.providers.netns",
    "netsim.extra.netns_nodes",
)
_FOLDERS = ("netsim.modules", "netsim.outputs", "netsim.devices", "netsim.augment")


def main() -> None:
    control = socket.socket(fileno=os.dup(0))
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    to_runtime, requests = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        control.close()
        to_runtime.close()
        _run(lambda: _be_runtime(requests), sys.argv)
    requests.close()
    is_early = "early" in sys.argv
    import_netlab(all_of_it=is_early)
    if is_early:
        control.sendall(b"\n")
    with control.makefile("rb") as lines:
        request = json.loads(lines.readline() or "null")
    if request is not None:
        write_files(request["files"])
        sys.exit(_Boot(control, to_runtime).run(*request["calls"]))


def _be_runtime(requests: socket.socket) -> None:
    with suppress(OSError):  # `netns-lab up` tries again, and says why it fails
        make_keys()
    begun: early.EarlyUp | None = None
    while (wanted := _receive(requests)) is not None:
        match wanted["arguments"]:
            case [str(word), "drafted"] if word == _TOLD:
                plan = Path(wanted["directory"], lab.PLAN)
                begun = early.EarlyUp(lambda: _be(requests, wanted | {"arguments": _UP}, _up_from_draft), plan)
            case [str(word), "planned"] if word == _TOLD and begun is not None:
                begun.go_on()
            case arguments:
                status = None
                if arguments == _UP and begun is not None:
                    status, begun = begun.finish(), None
                if status is None:
                    _serve(requests, wanted, runtime.main)
                else:
                    _answer(requests, status)


def _up_from_draft() -> None:
    try:
        nodes.up_from_draft()
    except runtime.FAILURES as error:
        sys.exit(f"netns-lab up: {error}")


def import_netlab(*, all_of_it: bool) -> None:
    """Import what every boot needs, or also what any may need, and read what netlab reads for every topology."""
    from remote_lab.netlab.netns import netlab_command, without_ansible

    netlab_command.install()
    for name in _MODULES:
        importlib.import_module(name)
    for folder in _FOLDERS if all_of_it else ():
        for module in pkgutil.iter_modules(sys.modules[folder].__path__, f"{folder}."):
            importlib.import_module(module.name)
    without_ansible.install()
    _read_defaults()
    gc.freeze()


def _read_defaults() -> None:
    """Let netlab (26.10, utils/read.py) read its defaults, which each process that is forked from here finds once."""
    from netsim.utils import read

    read.read_yaml(_POD_DEFAULTS)  # goes into a cache of netlab's own
    read_from_pickle, kept = read.read_from_pickle, {_DEFAULTS: read.read_from_pickle(_DEFAULTS)}
    # Nobody but us was in the pod until now, and whoever gets the object may change it, as when it came from the file.
    read.read_from_pickle = lambda path: kept.pop(path, None) or read_from_pickle(path)


def write_files(files: Mapping[str, Sequence[Any]]) -> None:
    """Write an upload: path in this directory -> base64 of the bytes, permission bits."""
    for name, (content, mode) in files.items():
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(content))
        path.chmod(mode)


class _Boot:
    def __init__(self, control: socket.socket, to_runtime: socket.socket) -> None:
        self._control = control
        self._to_runtime = to_runtime
        self._early_look: _EarlyLook | None = None

    def run(self, up: Sequence[str], then: Sequence[str]) -> int:
        """Run both calls; return the exit status of the last one."""
        to_here, requests = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        child = os.fork()
        if child == 0:
            requests.close()
            self._control.close()
            _route({"netlab": to_here, "netns-lab": self._to_runtime})
            _run(_netlab, [_NETLAB, *up])
        to_here.close()
        # Whoever U leaves behind would keep R for ever.
        self._to_runtime.close()
        if status := self._wait(child, requests, then):
            return status
        self._control.sendall(b"\n")
        if self._early_look is not None and (printed := self._early_look.result()) is not None:
            self._control.sendall(printed)
            return 0
        child = os.fork()
        if child == 0:
            os.dup2(self._control.fileno(), 1)
            self._control.close()
            _run(_netlab, [_NETLAB, *then])
        return _exit_status(os.waitpid(child, 0)[1])

    def _wait(self, child: int, requests: socket.socket, then: Sequence[str]) -> int:
        """Fork what U asks for until U ends, and return its exit status."""
        ended = os.pidfd_open(child)
        with selectors.DefaultSelector() as selector:
            selector.register(ended, selectors.EVENT_READ)
            selector.register(requests, selectors.EVENT_READ)
            while True:
                ready = [key.fileobj for key, _ in selector.select()]
                if ended in ready:
                    break
                if (wanted := _receive(requests)) is None:
                    selector.unregister(requests)
                    continue
                if wanted["arguments"] == [_TOLD, "starting"]:
                    self._early_look = self._early_look or _EarlyLook([_NETLAB, *then], self._control)
                else:
                    _serve(requests, wanted, self._fork_netlab)
        os.close(ended)
        requests.close()
        return _exit_status(os.waitpid(child, 0)[1])

    def _fork_netlab(self) -> None:
        self._control.close()
        _netlab()


def _netlab() -> None:
    import netsim.cli

    netsim.cli.lab_commands(sys.argv[0])


class _EarlyLook:
    """A call of netlab that only reads its record of the lab, run beside another one."""

    def __init__(self, arguments: list[str], control: socket.socket) -> None:
        self._record = _mark_of_record()
        self._printed, self._complained = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115 - see result
        self._pid = os.fork()
        if self._pid == 0:
            control.close()
            os.dup2(self._printed.fileno(), 1)
            os.dup2(self._complained.fileno(), 2)
            _run(_netlab, arguments)

    def result(self) -> bytes | None:
        """Return what it printed; None when it failed, or read another record than there is now."""
        with self._printed, self._complained:
            status = os.waitpid(self._pid, 0)[1]
            if status or self._record is None or _mark_of_record() != self._record:
                return None  # and say nothing: the next one does
            for file in (self._printed, self._complained):
                file.seek(0)
            os.write(2, self._complained.read(_MAX_COMPLAINT))
            return self._printed.read()


def _mark_of_record() -> tuple[int, ...] | None:
    try:
        status = _RECORD.lstat()
    except OSError:
        return None
    return status.st_mode, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _receive(requests: socket.socket) -> dict[str, Any] | None:
    """Return what somebody wants to be run; None when nobody is there to ask any more."""
    message = requests.recv(_MAX_MESSAGE)
    wanted: dict[str, Any] | None = json.loads(message) if message else None
    return wanted


def _serve(requests: socket.socket, wanted: Mapping[str, Any], run: Callable[[], None]) -> None:
    """Fork a process for one request, and answer with how it ended."""
    child = os.fork()
    if child == 0:
        _be(requests, wanted, run)
    _answer(requests, os.waitpid(child, 0)[1])


def _be(requests: socket.socket, wanted: Mapping[str, Any], run: Callable[[], None]) -> NoReturn:
    requests.close()
    os.chdir(wanted["directory"])
    os.environ.clear()
    os.environ.update(wanted["environment"])
    _run(run, wanted["arguments"])


def _answer(requests: socket.socket, wait_status: int) -> None:
    requests.send(json.dumps(_exit_status(wait_status)).encode())


def _exit_status(wait_status: int) -> int:
    code = os.waitstatus_to_exitcode(wait_status)
    return code if code >= 0 else 128 - code  # as shells have it


def _run(run: Callable[[], None], arguments: list[str]) -> NoReturn:
    """Be a process that runs a command and ends; without the interpreter's last round, which costs what it frees."""
    status = 1
    try:
        sys.argv = arguments
        run()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if end.code is not None and not isinstance(end.code, int):
            print(end.code, file=sys.stderr)
    except BaseException:  # noqa: BLE001 - the top of a process; whoever waits for it gets the status
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status & 0xFF)


class _Routed:
    """Stands for `subprocess` where netlab runs commands (26.10, netsim/cli/external_commands.py)."""

    def __init__(self, routes: Mapping[str, socket.socket]) -> None:
        self._routes = routes

    def __getattr__(self, name: str) -> Any:
        return getattr(subprocess, name)

    def run(self, command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
        """See `subprocess.run`; a command of ours is run by whoever has it in memory."""
        if list(command) == ["netns-lab", "installed"]:
            return subprocess.CompletedProcess(command, 0, f"{runtime.INSTALLED}\n", "")
        route = self._routes.get(command[0])
        if route is None or options.get("capture_output"):
            return subprocess.run(command, **options)  # noqa: PLW1510 - the caller says whether to check
        sys.stdout.flush()
        if list(command) == _UP:
            _ask(self._routes["netlab"], [_TOLD, "starting"])
        _ask(route, command)
        status = json.loads(route.recv(_MAX_MESSAGE))
        if status and options.get("check"):
            raise subprocess.CalledProcessError(status, command)
        return subprocess.CompletedProcess(command, status)


def _ask(route: socket.socket, command: Sequence[str]) -> None:
    wanted = {"arguments": [*command], "directory": os.getcwd(), "environment": dict(os.environ)}  # noqa: PTH109
    route.send(json.dumps(wanted).encode())


def _route(routes: Mapping[str, socket.socket]) -> None:
    from netsim.cli import external_commands
    from netsim.extra import netns_nodes

    external_commands.subprocess = _Routed(routes)
    netns_nodes.tell = lambda what: _ask(routes["netns-lab"], [_TOLD, what])

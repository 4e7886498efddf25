"""The keeper of one pod: holds its number, starts it, passes connections on to its devices, and ends with it.

The keeper is PID 1 of a pid namespace in which the pod's own is nested, and belongs to the user, not to a subordinate
id. So nothing in the pod sees it or can look like it, and the kernel ends the pod with it, however it ends. Its last
argument says whose it is; its number is the address that it has bound.

Its standard input and output are a socket to the server. It answers each line, a JSON object, by a line:
`{"do": "start", "request": {...}}` starts the pod; with it comes the descriptor by which a spare pod, which no lab has
yet, is told its name, and ends when nobody will. `{"do": "rename", "tag": TAG}` says whose the keeper of such a pod is
from now on. `{"do": "forward", "forwards": [[HERE, PORT, DEVICE, PORT], ...]}` makes its devices reachable. A socket
that ends before the pod stands ends the keeper: its server is gone.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import sys
from pathlib import Path
from typing import Any, NoReturn

from remote_lab.netlab.netns import kernel, pod_start
from remote_lab.netlab.rootless import forwarding, user_namespace
from remote_lab.netlab.rootless.nameplate import Nameplate

_CHUNK_BYTES = 65536


def main(ids: tuple[int, int, int]) -> None:
    """Become a keeper and return; arguments at the end: address and port to be bound, and the tag."""
    address, port, _ = sys.argv[-3:]
    claim = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        claim.bind((address, int(port)))
        user_namespace.enter(*ids)
        kernel.unshare(kernel.CLONE_NEWPID)
    except OSError as error:
        _say({"error": str(error), "errno": error.errno})
        return
    if os.fork() == 0:
        _run()


def _say(answer: dict[str, object]) -> None:
    os.write(1, json.dumps(answer).encode() + b"\n")


def _run() -> NoReturn:
    try:
        os.setsid()
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        _say({"ok": True})
        _Keeper().run()
    finally:
        os._exit(1)


class _Keeper:
    def __init__(self) -> None:
        self._server = socket.socket(fileno=0)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._server, selectors.EVENT_READ)
        self._pod: int | None = None
        self._nameplate: Nameplate | None = None
        """Where its pod was a spare."""
        self._line = b""
        self._descriptors: list[int] = []
        """That came and were not used yet."""

    def run(self) -> None:
        """Serve until the pod, the forwarder, or a server that has no pod yet, is gone."""
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is not self._server:
                    return
                chunk = self._hear()
                if not chunk and self._pod is None:
                    return
                if not chunk:
                    self._selector.unregister(self._server)
                    self._let_go()
                *lines, self._line = (self._line + chunk).split(b"\n")
                for line in lines:
                    self._obey(json.loads(line))

    def _hear(self) -> bytes:
        """Return what the server says, empty when it asks no more."""
        try:
            chunk, descriptors, _, _ = socket.recv_fds(self._server, _CHUNK_BYTES, 1)
        except ConnectionResetError:  # it went away before it had read our last answer
            return b""
        self._descriptors += descriptors
        return chunk

    def _let_go(self) -> None:
        """Close the socket to a server that asks no more."""
        null = os.open("/dev/null", os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(null, standard)
        os.close(null)

    def _obey(self, order: dict[str, Any]) -> None:
        try:
            if order["do"] == "start":
                self._start(order["request"])
            elif order["do"] == "rename" and self._nameplate is not None:
                self._nameplate.write(order["tag"])
            elif order["do"] == "forward" and self._pod is not None:
                forwards = {(here, port): (device, behind) for here, port, device, behind in order["forwards"]}
                self._selector.register(_forward(self._pod, forwards), selectors.EVENT_READ)
        except (OSError, pod_start.PodStartError) as error:
            _say({"error": str(error)})
        else:
            _say({"ok": True})

    def _start(self, request: dict[str, Any]) -> None:
        name_socket = self._descriptors.pop() if self._descriptors else None
        try:
            if name_socket is not None:
                self._nameplate = Nameplate(sys.argv[-1])
            self._pod = _start(request | {"name_socket": name_socket})
        finally:
            if name_socket is not None:
                os.close(name_socket)  # its other end shows who else has it
        self._selector.register(self._pod, selectors.EVENT_READ)


def _start(request: dict[str, Any]) -> int:
    """Start the pod and return a pidfd of its PID 1."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        _run_start(request, write)
    os.close(write)
    with os.fdopen(read) as said:
        # Not to the end: a pod that waits for its name holds the pipe as well.
        answer = json.loads(said.readline() or '{"error": "its start ended without a word"}')
    os.waitpid(child, 0)
    if "error" in answer:
        raise pod_start.PodStartError(answer["error"])
    return os.pidfd_open(answer["pid"])


def _run_start(request: dict[str, Any], said: int) -> NoReturn:
    answer: dict[str, object] = {"error": "its start failed"}
    try:
        # The groups are the user's, and root of the namespace may not join them.
        for group in request.pop("groups"):
            Path(group).write_text("0")
        kernel.unshare(kernel.CLONE_NEWNS)
        kernel.stop_mount_propagation()
        kernel.mount("proc", "/proc", "proc")  # that of this pid namespace: maps are written by pid
        answer = {"pid": pod_start.start(pod_start.PodRequest(**request, groups=[]))}
    except Exception as error:  # noqa: BLE001 - last words of a forked process, which must never return
        answer = {"error": f"{error}" if isinstance(error, OSError) else f"{type(error).__name__}: {error}"}
    finally:
        os.write(said, json.dumps(answer).encode() + b"\n")
        os._exit(0)


def _forward(pod: int, forwards: dict[forwarding.Address, forwarding.Address]) -> int:
    """Listen for the devices, on the host and in the pod; return a pidfd of the process that does.

    In the pod because netlab, which runs there, connects to its devices at the same addresses as everybody.
    """
    forwarding.raise_file_limit()
    listeners = forwarding.open_listeners(forwards)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        _run_forwarder(pod, forwards, listeners, write)
    os.close(write)
    for listener in listeners:
        listener.close()
    with os.fdopen(read) as said:
        problem = said.read()
    if problem:
        os.waitpid(child, 0)
        raise OSError(problem)
    return os.pidfd_open(child)


def _run_forwarder(
    pod: int,
    forwards: dict[forwarding.Address, forwarding.Address],
    listeners: dict[socket.socket, forwarding.Address],
    said: int,
) -> NoReturn:
    try:
        kernel.join_namespaces(pod, kernel.CLONE_NEWUSER | kernel.CLONE_NEWNET)
        user_namespace.drop_capabilities()
        forwarder = forwarding.Forwarder(listeners | forwarding.open_listeners(forwards))
        null = os.open("/dev/null", os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(null, standard)
        os.close(said)
        forwarder.run()
    except BaseException as error:  # noqa: BLE001 - last words of a forked process, which must never return
        os.write(said, str(error).encode())
    os._exit(1)

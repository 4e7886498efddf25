"""Where the server starts netlab, and nowhere else: no shell, no input, a deadline, ended as a process group.

Where netlab runs (in a pod, on the host) is decided by the command it is given; see `site.py`. What an operator runs in
a terminal goes through `foreground.py`.
"""

from __future__ import annotations

import logging
import os
import re
import selectors
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import IO

logger = logging.getLogger(__name__)
output_logger = logging.getLogger("remote_lab.netlab.output")
"""Gets what netlab says, line by line, where that is wanted."""

MAX_LOG_BYTES = 16 * 2**20
MAX_CAPTURE_BYTES = 16 * 2**20
_POLL_SECONDS = 0.05
_CHUNK_BYTES = 65536
_LAST_OUTPUT_SECONDS = 0.2
_LEADER_SECONDS = 1.0
_KILL_SECONDS = 5.0
# Escape sequences of terminals, control characters, and those of Unicode that turn or break lines: an uploaded topology
# must not write into the server's log.
_CONTROL = re.compile(
    r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]"
)
_CONTROL_BYTES = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]")
_LEAD_BYTE = b"\xc2"


class Ending(Enum):
    """Why a netlab call is over."""

    EXITED = "exited"
    """By itself; `exit_status` says how."""
    DEADLINE = "deadline"
    """It took too long and was ended."""
    CANCELLED = "cancelled"
    """The caller wanted it ended."""


@dataclass(frozen=True)
class BegunCall:
    """A command that was started before it is known what it shall do."""

    process: subprocess.Popen[bytes]
    control: socket.socket
    """Its standard input; what it says there goes into the result."""

    def end(self) -> None:
        """End it and leave no zombie; what it waits for is about to end, or sees that nobody is there any more."""
        self.control.close()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(_LEADER_SECONDS)
        if self.process.poll() is None:
            _end_group(self.process, 0.0)
        if self.process.stdout is not None:
            self.process.stdout.close()


@dataclass(frozen=True)
class NetlabCall:
    """How netlab is called."""

    command: Sequence[str]
    """Argument list; the first is an executable by its path or on the PATH of `environment`."""
    environment: Mapping[str, str]
    directory: Path
    log: Path | None
    """What netlab says is appended here as it comes; without it, it is dropped."""
    seconds: float
    """Deadline."""
    capture: bool = False
    """Standard output goes into the result, not into the log."""
    grace_seconds: float = 5.0
    """Between asking the process group to end and killing it."""
    leader_only_waits: bool = False
    """The command merely waits for netlab, as `netns/enter.py` does: it ends by itself, after netlab, and reaps it.
    Killed first, it leaves a zombie to the host's init, and the pod's pid namespace stays until that one is reaped."""
    capture_bytes: int = MAX_CAPTURE_BYTES
    """What comes after that is dropped."""
    stream: bool = False
    """What goes to the log file also goes to `output_logger`, as it comes."""
    begun: BegunCall | None = None
    """The command runs already; it was started by `begin`."""


@dataclass(frozen=True)
class NetlabResult:
    """What came of a netlab call."""

    ending: Ending
    exit_status: int | None
    """None when it had to be killed."""
    output: str
    """Captured standard output, otherwise empty."""
    seconds: float

    @property
    def succeeded(self) -> bool:
        return self.ending is Ending.EXITED and self.exit_status == 0


def begin(command: Sequence[str], environment: Mapping[str, str], directory: Path) -> BegunCall:
    """Start a command that is told later what to do, by the socket that is its standard input.

    Raises:
        OSError: the executable cannot be started.
    """
    here, there = socket.socketpair()
    try:
        process = subprocess.Popen(
            list(command),
            stdin=there.fileno(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd=directory,
            start_new_session=True,
        )
    except BaseException:
        here.close()
        raise
    finally:
        there.close()
    return BegunCall(process, here)


def run_netlab(
    call: NetlabCall,
    *,
    cancel: threading.Event | None = None,
    on_line: Callable[[str], None] | None = None,
    on_capture: Callable[[], None] | None = None,
) -> NetlabResult:
    """Run netlab to its end, its deadline or the caller's wish; never raises for what netlab does.

    Args:
        call: what to run.
        cancel: set by anyone to end the call.
        on_line: gets every line that goes to the log, as it comes.
        on_capture: told when the first output that goes into the result has come.
    Raises:
        OSError: the executable cannot be started, or the log cannot be written.
    """
    began = time.monotonic()
    process = call.begun.process if call.begun else _start(call)
    try:
        with _Output(process, call, on_line, on_capture) as output:
            ending = _wait(process, output, began + call.seconds, cancel)
            if ending is not Ending.EXITED:
                _end(process, call)
            output.read_rest()
            captured = output.captured
    except BaseException:
        _end(process, call)
        raise
    finally:
        for stream in (process.stdout, process.stderr, call.begun and call.begun.control):
            if stream:
                stream.close()
    seconds = time.monotonic() - began
    logger.debug("%s: %s, status %s, %.2f s", " ".join(call.command), ending.value, process.returncode, seconds)
    exit_status = process.returncode if ending is Ending.EXITED else None
    return NetlabResult(ending, exit_status, captured.decode(errors="replace"), seconds)


def _start(call: NetlabCall) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        list(call.command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if call.capture else subprocess.STDOUT,
        env=dict(call.environment),
        cwd=call.directory,
        start_new_session=True,
    )


def _wait(process: subprocess.Popen[bytes], output: _Output, deadline: float, cancel: threading.Event | None) -> Ending:
    while process.poll() is None:
        if cancel is not None and cancel.is_set():
            return Ending.CANCELLED
        if time.monotonic() >= deadline:
            return Ending.DEADLINE
        output.read(_POLL_SECONDS)
    return Ending.EXITED


def _end(process: subprocess.Popen[bytes], call: NetlabCall) -> None:
    """End a call; one that not even SIGKILL ends, as when its disk does not answer, is left to itself."""
    if call.leader_only_waits:
        _end_members(process)
    _end_group(process, call.grace_seconds)
    if process.poll() is None:
        logger.error("Process %d does not end when killed: %s", process.pid, " ".join(call.command))


def _end_group(process: subprocess.Popen[bytes], grace_seconds: float) -> None:
    """End a process and all that stayed in its group; the group spans pid namespaces, so that it reaches into a pod."""
    for number, seconds in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, _KILL_SECONDS)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
            break
    # The first process may be gone while others of its group ignore SIGTERM.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _end_members(process: subprocess.Popen[bytes]) -> None:
    """Kill the group but for its first process and wait for that one."""
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != process.pid:
            with suppress(ProcessLookupError):
                if os.getpgid(int(entry)) == process.pid:
                    os.kill(int(entry), signal.SIGKILL)
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGCONT)  # nsenter(1) stops itself when what it waits for was stopped
    with suppress(subprocess.TimeoutExpired):
        process.wait(_LEADER_SECONDS)


class _Output:
    """Moves what a process says into the log and the result, within limits."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        call: NetlabCall,
        on_line: Callable[[str], None] | None,
        on_capture: Callable[[], None] | None,
    ) -> None:
        self._selector = selectors.DefaultSelector()
        self._log: IO[bytes] | None = None
        self._log_path = call.log
        self._log_bytes = 0
        self._on_line = on_line
        self._on_capture = on_capture
        self._stream = call.stream
        self._capture_bytes = call.capture_bytes
        self._line = b""
        self._half = b""
        self._captured = bytearray()
        control = call.begun.control if call.begun else None
        for stream, is_captured in ((process.stdout, call.capture), (process.stderr, False), (control, True)):
            if stream is not None:
                os.set_blocking(stream.fileno(), False)
                self._selector.register(stream, selectors.EVENT_READ, is_captured)
        # Readable when the process has ended, so that nobody sleeps over that.
        self._ended = os.pidfd_open(process.pid)
        self._selector.register(self._ended, selectors.EVENT_READ)

    def __enter__(self) -> _Output:
        try:
            if self._log_path is not None:
                self._log = self._log_path.open("ab", buffering=0)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._selector.close()
        os.close(self._ended)
        if self._log is not None:
            self._log.close()

    @property
    def captured(self) -> bytes:
        return bytes(self._captured)

    def read(self, seconds: float) -> bool:
        """Move what is there, waiting at most so long for it; return whether there was anything."""
        ready = [key for key, _ in self._selector.select(seconds) if key.fileobj != self._ended]
        for key in ready:
            try:
                chunk = os.read(key.fd, _CHUNK_BYTES)
            except BlockingIOError:
                continue
            except ConnectionResetError:  # it went away before it had read all that it was told
                chunk = b""
            if not chunk:
                self._selector.unregister(key.fileobj)
            elif key.data:
                if self._on_capture is not None and not self._captured:
                    self._on_capture()
                self._captured += chunk[: self._capture_bytes - len(self._captured)]
            else:
                self._take(chunk)
        return bool(ready)

    def read_rest(self) -> None:
        """Move what an ended process left behind; its children may hold the pipe open, so not to its end."""
        deadline = time.monotonic() + _LAST_OUTPUT_SECONDS
        while time.monotonic() < deadline and self.read(0.0):
            pass

    def _take(self, chunk: bytes) -> None:
        chunk = self._half + chunk
        # The first byte of a character that may be a control one waits for the second.
        self._half = _LEAD_BYTE if chunk.endswith(_LEAD_BYTE) else b""
        chunk = _CONTROL_BYTES.sub(b"", chunk[: len(chunk) - len(self._half)])
        room = MAX_LOG_BYTES - self._log_bytes
        if self._log is not None and room > 0:
            self._log.write(chunk[:room])
            if len(chunk) >= room:
                self._log.write(b"\n... the log is cut here: netlab said too much\n")
        self._log_bytes += len(chunk)
        if self._on_line is None and not self._stream:
            return
        *lines, rest = (self._line + chunk).split(b"\n")
        self._line = rest[-_CHUNK_BYTES:]
        for line in lines:
            self._tell(line.decode(errors="replace"))

    def _tell(self, line: str) -> None:
        if self._stream:
            output_logger.info("%s", _CONTROL.sub("", line).rstrip())
        if self._on_line is not None:
            self._on_line(line)

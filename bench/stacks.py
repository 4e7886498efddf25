"""What py-spy recorded, read and summed up."""

from __future__ import annotations

import collections
import re
from collections.abc import Iterable
from pathlib import Path

SHOWN = 14
OWN = ("remote_lab/", "netsim/", "opt/remote-lab")
"""Whose functions are named; those of libraries are summed up."""
IDLE = (
    "_worker (concurrent/futures/thread.py",
    "wait (threading.py",
    "_try_wait (subprocess.py",
    "_wait (subprocess.py",
    "join (threading.py",
    "select (selectors.py",
    "readinto (socket.py",
    # They do nothing else in the interpreter.
    "_receive (remote_lab/netlab/netns/zygote.py",
    "_serve (remote_lab/netlab/netns/zygote.py",
    "_Routed.run (remote_lab/netlab/netns/zygote.py",
)
"""On top of a stack that waits for work, a child or a socket; py-spy cannot tell that from work without pauses."""
_PROCESS = re.compile(r'process \d+:"(.*)')
_INTERPRETER = re.compile(r"\S*python\S*( -[IS])*( -m)? ")
_COMMAND_LENGTH = 60

Stacks = collections.Counter[tuple[str, ...]]


def read_stacks(raw: Path) -> Stacks:
    """Collapsed stacks and how often each was seen at work."""
    stacks: Stacks = collections.Counter()
    for line in raw.read_text().splitlines() if raw.exists() else ():
        stack, _, count = line.rpartition(" ")
        frames = tuple(stack.split(";"))
        # py-spy reads a running process: now and then a frame is garbage, which may break its line.
        if count.isdigit() and not any(idle in frames[-1] for idle in IDLE):
            stacks[frames] += int(count)
    return stacks


def summarize(stacks: Stacks) -> list[str]:
    """Three lists: the processes, whose code was on top, and the functions of ours and of netlab most went through."""
    whole = sum(stacks.values()) or 1
    processes: collections.Counter[str] = collections.Counter()
    libraries: collections.Counter[str] = collections.Counter()
    functions: collections.Counter[str] = collections.Counter()
    for frames, count in stacks.items():
        started = [found[1] for frame in frames if (found := _PROCESS.match(frame))]
        processes[_command(started[-1]) if started else "the server"] += count
        libraries[_library(frames[-1])] += count
        code = [frame for frame in frames if any(own in frame for own in OWN) and not _PROCESS.match(frame)]
        for name in {_function(frame) for frame in code}:
            functions[name] += count
    lists = (("in", processes), ("on top", libraries), ("through", functions))
    return [
        f"{100 * count / whole:5.1f} % {how} {name}"
        for how, found in lists
        for name, count in _most(found.items(), whole)
    ]


def _most(found: Iterable[tuple[str, int]], whole: int) -> list[tuple[str, int]]:
    # What everything goes through says nothing.
    shown = [pair for pair in sorted(found, key=lambda pair: -pair[1]) if whole / 100 <= pair[1] < 0.95 * whole]
    return [(name, count) for name, count in shown[:SHOWN]]


def _command(line: str) -> str:
    return _INTERPRETER.sub("", line.rstrip('"'))[:_COMMAND_LENGTH]


def _function(frame: str) -> str:
    """`name (file.py:12)` without its line."""
    return f"{frame.rpartition(':')[0]})" if frame.endswith(")") and ":" in frame else frame


def _library(frame: str) -> str:
    """The package, or the module of the standard library, that a frame is of."""
    path = frame.rpartition("(")[2].partition(":")[0].strip(")")
    if path.startswith("<frozen"):
        return "imports"
    return path.partition("/")[0].removesuffix(".py")

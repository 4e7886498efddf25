"""Which xdist worker runs which test, in a run with lab tests: those go to one worker. Runs without are xdist's own.

xdist decides on a scheduler before it knows the tests. So `LabScheduling` lets that of the chosen mode listen until
all workers have collected, and then either leaves everything to it or hands over to `UnitScheduling`.

xdist's schedulers by scope are not used for that: up to 3.8 they run a test that crashed its worker again and again,
and may wait forever after a crash (pytest-dev/pytest-xdist issues 1323 and 1378).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xdist.scheduler.protocol import Scheduling
    from xdist.workermanage import WorkerController

CHUNKS_PER_WORKER = 8
"""In how many pieces the tests that may run anywhere are cut: fewer end unevenly, more tear files apart."""


@dataclass(frozen=True)
class Plan:
    """What workers know of their tests and the controller does not: positions in the collection."""

    lab_tests: frozenset[int]
    groups: dict[int, str]
    """With `--dist loadgroup`, the name of the xdist_group of each test that has one."""


class LabScheduling:
    """The scheduler of a run that may have lab tests: the mode's own until all workers have collected."""

    def __init__(self, plain: Scheduling, mode: str, plan: Callable[[], Plan | None]) -> None:
        self.config = plain.config
        """Not xdist's matter, but pytest-rerunfailures asks each scheduler for it when a worker has crashed."""
        self._current: Scheduling = plain
        self._mode = mode
        self._plan = plan
        self._collections: dict[WorkerController, list[str]] = {}
        self._decided = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._current, name)

    def add_node_collection(self, node: WorkerController, collection: Sequence[str]) -> None:
        """Remember which tests a worker has found."""
        self._collections[node] = list(collection)
        self._current.add_node_collection(node, collection)

    def schedule(self) -> None:
        """Send out tests; the first time, decide by whom."""
        if not self._decided:
            self._decided = True
            self._decide()
        self._current.schedule()

    def _decide(self) -> None:
        plan = self._plan()
        nodes = self._current.nodes
        found = [self._collections[node] for node in nodes if node in self._collections]
        # Workers that found different tests are an error, which the mode's own scheduler reports.
        if plan is None or any(collection != found[0] for collection in found):
            return
        units = make_units(found[0], plan, self._mode, chunks=CHUNKS_PER_WORKER * len(nodes))
        scheduling = UnitScheduling(found[0], units, plan.lab_tests)
        for node in nodes:
            scheduling.add_node(node)
            if node in self._collections:
                scheduling.add_node_collection(node, self._collections[node])
        self._current = scheduling


class UnitScheduling:
    """Sends units of tests to workers, each to one; those of a worker that crashed go on with the test behind.

    A worker runs a test when it knows the next one, or that there is none: it always has two, or is told to end.
    """

    collection_is_completed = True

    def __init__(self, collection: list[str], units: Iterable[list[int]], lab_tests: frozenset[int]) -> None:
        self._collection = collection
        self._units = deque(units)
        self._lab_tests = lab_tests
        self._pending: dict[WorkerController, list[int]] = {}
        self._ready: set[WorkerController] = set()

    @property
    def nodes(self) -> list[WorkerController]:
        """The workers that are up."""
        return list(self._pending)

    @property
    def tests_finished(self) -> bool:
        """True when each worker has at most the one test that it runs when it is told to end."""
        return not self._units and all(len(pending) < 2 for pending in self._pending.values())

    @property
    def has_pending(self) -> bool:
        """True while a test has not ended."""
        return bool(self._units) or any(self._pending.values())

    def add_node(self, node: WorkerController) -> None:
        """A worker is up; it gets tests when it has collected."""
        self._pending[node] = []

    def add_node_collection(self, node: WorkerController, collection: Sequence[str]) -> None:
        """A worker has collected; one that found other tests than those before it is of no use."""
        if list(collection) == self._collection:
            self._ready.add(node)
        else:
            node.shutdown()

    def schedule(self) -> None:
        """Give every worker something to do."""
        for node in self.nodes:
            self._feed(node)

    def mark_test_complete(self, node: WorkerController, item_index: int, duration: float = 0) -> None:
        """A test has ended; its worker gets the next unit when it is about to run out of tests."""
        self._pending[node].remove(item_index)
        self._feed(node)

    def mark_test_pending(self, item: str) -> None:
        """Run a test once more (pytest-rerunfailures asks for it after a crash)."""
        self._put_back([self._collection.index(item)])
        self.schedule()

    def remove_pending_tests_from_node(self, node: WorkerController, indices: Sequence[int]) -> None:
        """Nothing is ever taken away from a worker."""
        raise NotImplementedError

    def remove_node(self, node: WorkerController) -> str | None:
        """A worker has ended; return the test that it died of, if any, and let another one do the rest."""
        self._ready.discard(node)
        pending = self._pending.pop(node)
        if not pending:
            return None
        crashed, *rest = pending
        self._put_back(rest)
        self.schedule()
        return self._collection[crashed]

    def _put_back(self, tests: list[int]) -> None:
        """Make units of tests again, in front of the others: lab tests join the one unit that they are."""
        waiting = [unit for unit in self._units if unit[0] in self._lab_tests]
        lab_unit = [test for test in tests if test in self._lab_tests]
        for unit in waiting:
            self._units.remove(unit)
            lab_unit += unit
        others = [test for test in tests if test not in self._lab_tests]
        self._units.extendleft(unit for unit in (others, lab_unit) if unit)

    def _feed(self, node: WorkerController) -> None:
        if node not in self._ready or node.shutting_down:
            return
        while self._units and len(self._pending[node]) < 2:
            unit = self._units.popleft()
            self._pending[node] += unit
            node.send_runtest_some(unit)
        if not self._units:
            node.shutdown()


def make_units(collection: Sequence[str], plan: Plan, mode: str, chunks: int) -> Iterator[list[int]]:
    """Yield the positions of tests that go to one worker together: first the lab tests, then what the mode wants."""
    if plan.lab_tests:
        yield sorted(plan.lab_tests)
    others = [position for position in range(len(collection)) if position not in plan.lab_tests]
    if mode in ("load", "worksteal"):
        size = max(1, len(others) // max(1, chunks))
        yield from (others[start : start + size] for start in range(0, len(others), size))
        return
    scopes: dict[str, list[int]] = {}
    for position in others:
        scopes.setdefault(_scope(collection[position], plan.groups.get(position), mode), []).append(position)
    yield from sorted(scopes.values(), key=len, reverse=True)


def _scope(nodeid: str, group: str | None, mode: str) -> str:
    if mode == "loadscope":
        return nodeid.rpartition("::")[0]
    if mode == "loadfile":
        return nodeid.partition("::")[0]
    return f"group {group}" if group else nodeid

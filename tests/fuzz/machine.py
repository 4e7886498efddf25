"""The rules by which hypothesis plays clients of a real server, and what must hold after each of them."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ClassVar

import requests
from harness import Server, wait_until
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from model import TOPOLOGIES, Answer, Client, Lab, World

MAX_CLIENTS = 6
LEASE_SECONDS = 3600
STEPS_BETWEEN_RESTARTS = 15
MOST_STEPS_WITHOUT = 100
"""Hypothesis leaves out some rules of a life, and may leave out those that restart in all of a short run."""
STEPS_BETWEEN_LOOKS = 3
"""At references: GET /lab asks netlab, which takes longer than everything else."""
WORKING = st.sampled_from(sorted(set(TOPOLOGIES) - {"broken"}))
ANY_NAME = st.sampled_from([None, None, "a", "b"])
PICK = st.integers(0, MAX_CLIENTS - 1)
UNKNOWN = st.sampled_from([str(uuid.UUID(int=7)), "nobody", "heartbeat "])

has_clients = precondition(lambda self: self.world.queue)
may_restart = precondition(lambda self: self.steps >= self.next_restart)
has_room = precondition(lambda self: len(self.world.queue) < MAX_CLIENTS)


class Clients(RuleBasedStateMachine):
    """Any interleaving of calls, restarts in between; one machine is one life of the queue, the server stays."""

    server: ClassVar[Server]
    slots: ClassVar[int] = 1
    warm: ClassVar[bool] = False
    ahead: ClassVar[int] = 0
    steps: ClassVar[int] = 0
    next_restart: ClassVar[int] = 0
    """In steps: a restart costs as much as thirty others."""

    @initialize(life=st.integers(0, 2**32))
    def begin(self, life: int) -> None:
        """Begin with an empty queue and no lab.

        Hypothesis begins with the simplest choices, which make a life of one rule, and looks for others behind the
        first choice that there is. So there is one, and the simplest life is not lived.
        """
        assume(life)
        self.world = World(self.slots, self.warm)
        self.pool = ThreadPoolExecutor(4)

    # What one client does.

    @has_room
    @rule(brings=st.sampled_from([None, *sorted(TOPOLOGIES)]))
    def open(self, brings: str | None) -> None:
        form = {} if brings is None else {"files": self.files_of(brings)}
        client = Client(self.opened(self.call("POST", "/session", Answer(201), **form)), brought=brings)
        self.world.queue.append(client)

    @has_clients
    @rule(who=PICK)
    def leave(self, who: int) -> None:
        client = self.pick(who)
        self.call("DELETE", f"/session/{client.session_id}", self.world.end(client))

    @has_clients
    @rule(who=PICK, topology=st.sampled_from(sorted(TOPOLOGIES)), reuse=st.booleans(), name=ANY_NAME)
    def acquire(self, who: int, topology: str, reuse: bool, name: str | None) -> None:
        client = self.pick(who)
        self.check(self.post_lab(client, topology, reuse, name), self.world.acquire(client, topology, reuse, name))

    @has_clients
    @rule(topology=st.sampled_from(sorted(TOPOLOGIES)), reuse=st.booleans())
    def acquire_without_waiting(self, topology: str, reuse: bool) -> None:
        client = self.pick(0)
        before = self.world.lab_of(client)
        is_there = before is not None and before.is_unused and before.topology == topology
        expected = self.world.acquire(client, topology, reuse, None)
        boots = not is_there and (expected.reused is False or expected.code == "lab_boot_failed")
        answer = self.post_lab(client, topology, reuse, None, Prefer="respond-async")
        self.check(answer, Answer(202) if boots else expected)
        if boots:
            end = (expected.reused is None, f"{topology}.yml")
            wait_until(lambda: self.failed_or_runs(client) == end, f"the lab of {topology} has come to {end}")

    @has_clients
    @rule(who=PICK, name=ANY_NAME)
    def release(self, who: int, name: str | None) -> None:
        client = self.pick(who)
        named = {} if name is None else {"X-Acquire-ID": name}
        self.call("POST", "/lab/release", self.world.release(client, name), client, headers=named)

    @has_clients
    @rule(who=PICK, force=st.booleans())
    def destroy(self, who: int, force: bool) -> None:
        client = self.pick(who)
        self.call("DELETE", f"/lab?force={force}", self.world.destroy(client, force), client)

    @has_clients
    @rule(who=PICK, seconds=st.sampled_from([LEASE_SECONDS / 2, LEASE_SECONDS + 1, 0]))
    def extend(self, who: int, seconds: float) -> None:
        client = self.pick(who)
        expected = Answer(200) if 0 < seconds <= LEASE_SECONDS else Answer(422, "lease_too_long")
        if client in self.world.waiting:
            expected = Answer(423, "session_waiting")
        self.call("POST", f"/session/{client.session_id}/extend", expected, json={"lease_seconds": seconds})

    @has_clients
    @rule(who=PICK)
    def heartbeat(self, who: int) -> None:
        self.call("POST", "/session/heartbeat", Answer(204), self.pick(who))

    @rule(nobody=UNKNOWN)
    def be_unknown(self, nobody: str) -> None:
        for session_id in [nobody, *self.world.ended[-2:]]:
            gone = Answer(404, "session_not_found")
            named = {"headers": {"X-Session-ID": session_id}}
            status = self.call("GET", f"/session/{session_id}", gone)
            assert status.json().get("reason") == (None if session_id == nobody else "its owner ended it")
            self.call("DELETE", f"/session/{session_id}", gone)
            self.call("POST", "/session/heartbeat", gone, **named)
            self.call("GET", "/lab", gone, **named)

    # What several do at the same time.

    @has_room
    @rule(count=st.integers(2, 3))
    def open_together(self, count: int) -> None:
        calls = [self.pool.submit(self.server.call, "POST", "/session") for _ in range(count)]
        ids = [self.opened(call.result()) for call in calls]
        places = sorted(self.server.status(session_id)[1] for session_id in ids)
        assert places == list(range(len(self.world.queue), len(self.world.queue) + count))
        self.world.queue += [Client(one) for one in sorted(ids, key=lambda one: self.server.status(one)[1])]

    @has_clients
    @rule(count=st.integers(1, 3), opens=st.booleans())
    def leave_together(self, count: int, opens: bool) -> None:
        leaving = self.world.queue[:count]
        new = self.pool.submit(self.server.call, "POST", "/session") if opens else None
        paths = [f"/session/{client.session_id}" for client in leaving]
        for call in [self.pool.submit(self.server.call, "DELETE", path) for path in paths]:
            assert call.result().status_code == 204
        for client in leaving:
            self.world.end(client)
        if new is not None:
            self.world.queue.append(Client(self.opened(new.result())))

    @has_clients
    @rule(asked=st.lists(st.tuples(WORKING, st.booleans()), min_size=2, max_size=4))
    def acquire_together(self, asked: list[tuple[str, bool]]) -> None:
        client = self.pick(0)
        before = self.world.labs.pop(client.slot or 0, None)
        calls = [self.pool.submit(self.post_lab, client, *one, None) for one in asked]
        answers = [call.result() for call in calls]
        got = [(what, answer.json()["reused"]) for (what, _), answer in zip(asked, answers, strict=True) if answer.ok]
        for answer in answers:
            assert answer.ok or (answer.status_code, answer.json()["code"]) == (423, "lab_busy"), answer.text
        held = before.references if before is not None else []
        if not held:
            assert got, "the slot was free, somebody must have got a lab"
        # References hold a lab, so all who got one got the same: booted at most once, and once if it was not there.
        [running] = {what for what, _ in got} or {before.topology if before else ""}
        booted = sum(not reused for _, reused in got)
        assert booted == 1 or (booted == 0 and before is not None and before.topology == running), (before, asked, got)
        assert not (held and booted)
        self.world.labs[client.slot or 0] = Lab(running, client, [*held, *([None] * len(got))])

    @has_clients
    @rule(topology=WORKING)
    def leave_while_acquiring(self, topology: str) -> None:
        client = self.pick(0)
        call = self.pool.submit(self.post_lab, client, topology, True, None)
        gone = self.server.call("DELETE", f"/session/{client.session_id}")
        assert gone.status_code == 204
        answer = call.result()
        known = {(200, None), (404, "session_not_found"), (423, "lab_busy")}
        assert (answer.status_code, answer.json().get("code")) in known, answer.text
        slot = client.slot or 0
        self.world.end(client)
        # What would stay warm may have been taken by the acquire before it went.
        wait_until(lambda: all(state == "running" for _, _, state in self.labs()), "no lab is on its way")
        if slot not in {number for number, _, _ in self.labs()}:
            self.world.labs.pop(slot, None)

    # The server's own life.

    @may_restart
    @rule(kill=st.booleans())
    def restart(self, kill: bool) -> None:
        self.begin_anew(kill)

    def begin_anew(self, kill: bool) -> None:
        type(self).next_restart = self.steps + STEPS_BETWEEN_RESTARTS
        self.server.kill() if kill else self.server.terminate()
        self.server.start()

    @may_restart
    @has_clients
    @rule(topology=WORKING, reuse=st.booleans())
    def kill_while_acquiring(self, topology: str, reuse: bool) -> None:
        """The same acquire by the same name takes one reference, however often it is asked."""
        type(self).next_restart = self.steps + STEPS_BETWEEN_RESTARTS
        client, name = self.pick(0), uuid.uuid4().hex
        cut: Future[requests.Response] = self.pool.submit(self.post_lab, client, topology, reuse, name)
        self.server.kill()
        self.server.start()
        assert isinstance(cut.exception(), requests.ConnectionError | None)
        expected = self.world.acquire(client, topology, reuse, name)
        again = self.post_lab(client, topology, reuse, name)
        assert (again.status_code, again.json().get("code")) == (expected.status, expected.code), again.text

    # What holds after each.

    @invariant()
    def is_as_the_model_says(self) -> None:
        """Order, states, slots and labs; nothing is left on its way."""
        if not hasattr(self, "world"):
            return
        type(self).steps += 1
        if self.steps >= self.next_restart + MOST_STEPS_WITHOUT:
            self.begin_anew(kill=True)
        world = self.world
        for place, client in enumerate(world.queue):
            self.wait_place(client, place)
        wait_until(self.labs_are_as_expected, f"labs are {world.labs}")
        slots = [client.slot for client in world.active]
        assert len({*slots}) == len(slots)
        assert {*slots} <= {*range(1, world.slots + self.ahead + 1)}
        head = self.server.call("GET", "/active-session")
        if world.queue:
            expected = {"session_id": world.queue[0].session_id, "status": "active", "position": 0}
            assert (head.status_code, head.json()) == (200, expected)
        else:
            assert (head.status_code, head.json()["code"]) == (404, "no_active_session")
        for client in world.active if self.steps % STEPS_BETWEEN_LOOKS == 0 else []:
            seen = self.server.call("GET", "/lab", client.session_id).json()
            lab = world.lab_of(client)
            name, count = (None, 0) if lab is None else (f"{lab.topology}.yml", len(lab.references))
            assert (seen["running"], seen["ref_count"]) == (lab is not None, count), (seen, world)
            assert lab is None or seen["topology"] == name

    def teardown(self) -> None:
        """Leave an empty queue and no lab to the next machine."""
        if not hasattr(self, "world"):
            return
        self.pool.shutdown()
        server = self.server
        while (head := server.call("GET", "/active-session")).status_code == 200:
            server.end_session(head.json()["session_id"])
        if self.warm:
            server.terminate()
            server.start()
        wait_until(lambda: all(lab["state"] == "running" for lab in self.health()["labs"]), "no lab is on its way")
        while labs := self.health()["labs"]:
            ids = [server.open_session() for _ in range(self.slots)]
            for session_id in ids:
                server.wait_active(session_id)
                server.acquire(session_id, TOPOLOGIES["one"][0], reuse=False)
            for session_id in ids:
                server.end_session(session_id)
            wait_until(lambda: len(self.health()["labs"]) < len(labs), "no lab is left")

    # Calls.

    def pick(self, who: int) -> Client:
        return self.world.queue[who % len(self.world.queue)]

    def call(
        self, method: str, path: str, expected: Answer, client: Client | None = None, **more: Any
    ) -> requests.Response:
        answer = self.server.call(method, path, client and client.session_id, **more)
        self.check(answer, expected)
        return answer

    def check(self, answer: requests.Response, expected: Answer) -> None:
        said = answer.json() if answer.content else {}
        assert (answer.status_code, said.get("code")) == (expected.status, expected.code), (answer.text, self.world)
        assert expected.reused is None or said["reused"] == expected.reused, (answer.text, self.world)

    def opened(self, answer: requests.Response) -> str:
        assert answer.status_code == 201, answer.text
        return str(answer.json()["session_id"])

    def post_lab(
        self, client: Client, topology: str, reuse: bool, name: str | None, **headers: str
    ) -> requests.Response:
        named = headers if name is None else {**headers, "X-Acquire-ID": name}
        form = {"reuse": str(reuse)}
        return self.server.call(
            "POST", "/lab", client.session_id, files=self.files_of(topology), data=form, headers=named
        )

    def files_of(self, topology: str) -> list[tuple[str, tuple[str, str]]]:
        text, extra = TOPOLOGIES[topology]
        return [("topology", (f"{topology}.yml", text)), *(("extra_files", item) for item in extra.items())]

    def failed_or_runs(self, client: Client) -> tuple[bool | None, str | None]:
        lab = self.server.call("GET", "/lab", client.session_id).json()
        return {"failed": True, "running": False}.get(lab["state"]), lab["topology"]

    def health(self) -> dict[str, Any]:
        answer: dict[str, Any] = self.server.call("GET", "/debug/health").json()
        return answer

    def labs(self) -> set[tuple[int, str, str]]:
        return {(lab["slot"], lab["topology"], lab["state"]) for lab in self.health()["labs"]}

    def labs_are_as_expected(self) -> bool:
        seen, expected = self.labs(), self.expected_labs()
        if not expected <= seen or any(state != "running" for _, _, state in seen):
            return False
        more = {(place, name.removesuffix(".yml")) for place, name, _ in seen - expected}
        return self.world.take_in(more, self.ahead)

    def expected_labs(self) -> set[tuple[int, str, str]]:
        return {(slot, f"{lab.topology}.yml", "running") for slot, lab in self.world.labs.items()}

    def wait_place(self, client: Client, place: int) -> None:
        def look() -> dict[str, Any]:
            answer: dict[str, Any] = self.server.call("GET", f"/session/{client.session_id}").json()
            return answer

        active = place < self.slots
        wanted = ("active" if active else "waiting", place)
        is_so: Callable[[], bool] = lambda: ((seen := look())["status"], seen["position"]) == wanted  # noqa: E731
        wait_until(is_so, f"{client} is {wanted}, not {look()}")
        client.slot = look()["slot"]
        assert (client.slot is not None) == active

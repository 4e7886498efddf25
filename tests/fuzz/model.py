"""What the queue and its labs must look like after every call: the contract, small enough to be read. No HTTP here."""

from __future__ import annotations

from dataclasses import dataclass, field

TOPOLOGIES: dict[str, tuple[str, dict[str, str]]] = {
    "one": ("nodes: [ r1 ]\n", {}),
    "two": ("nodes: [ r1, r2 ]\n", {}),
    "extra": ("nodes: [ r1 ]\n", {"configs/r1.j2": "hostname r1\n"}),
    "broken": ("nodes: [ r1 ]\nstandin: { up_fails: true }\n", {}),
}
"""What clients upload: name -> topology and extra files; another extra file makes another lab."""


@dataclass(eq=False)
class Client:
    """A session that has not ended."""

    session_id: str
    slot: int | None = None
    """None while it waits."""
    brought: str | None = None
    """The topology that came with it, which may be booted ahead."""


@dataclass
class Lab:
    """The running lab of a slot."""

    topology: str
    owner: Client | None
    """None for one that an ended session left warm."""
    references: list[str | None]
    """The names of the acquires that were not released, the oldest first."""
    is_unused: bool = False
    """Booted ahead, and nobody has had it so far."""


@dataclass(frozen=True)
class Answer:
    """What a call must be answered with."""

    status: int
    code: str | None = None
    reused: bool | None = None


@dataclass
class World:
    """The queue, in its order, and the labs."""

    slots: int
    warm: bool
    queue: list[Client] = field(default_factory=list)
    labs: dict[int, Lab] = field(default_factory=dict)
    ended: list[str] = field(default_factory=list)

    @property
    def active(self) -> list[Client]:
        """Strict FIFO: the first of the queue, as many as there are slots."""
        return self.queue[: self.slots]

    @property
    def waiting(self) -> list[Client]:
        """All others."""
        return self.queue[self.slots :]

    def lab_of(self, client: Client) -> Lab | None:
        """The lab that a session has; one that was left warm is nobody's."""
        lab = self.labs.get(client.slot or 0)
        return lab if lab is not None and lab.owner is client else None

    def take_in(self, labs: set[tuple[int, str]], ahead: int) -> bool:
        """Take in the labs that were booted ahead, `(place, topology)`; False for one that nobody can have wanted.

        When that is done depends on the moment, so the model does not know whether it was.
        """
        brought = [client.brought for client in self.waiting]
        owners = {client.slot: client for client in self.active}
        for place, topology in labs:
            owner = owners.get(place)
            if owner is None and topology in brought:
                brought.remove(topology)
            elif owner is not None and owner.brought == topology and place not in self.labs:
                self.labs[place] = Lab(topology, owner, [], is_unused=True)
            else:
                return False
        return len(self.waiting) - len(brought) <= ahead

    def acquire(self, client: Client, topology: str, reuse: bool, name: str | None) -> Answer:
        """POST /lab, by the acquire table."""
        if client not in self.active:
            return Answer(423, "session_waiting")
        assert client.slot is not None
        lab = self.labs.get(client.slot)
        if lab is not None:
            if name is not None and name in lab.references:
                return Answer(200, reused=True)
            if lab.topology == topology and (reuse or lab.is_unused):
                was_used, lab.is_unused = not lab.is_unused, False
                lab.references.append(name)
                lab.owner = client
                return Answer(200, reused=was_used)
            if lab.references:
                return Answer(423, "lab_busy")
            del self.labs[client.slot]
        if topology == "broken":
            return Answer(500, "lab_boot_failed")
        self.labs[client.slot] = Lab(topology, client, [name])
        return Answer(200, reused=False)

    def release(self, client: Client, name: str | None) -> Answer:
        """POST /lab/release: the oldest reference, or the one of that name."""
        if client not in self.active:
            return Answer(423, "session_waiting")
        lab = self.lab_of(client)
        if name is not None:
            if lab is not None and name in lab.references:
                lab.references.remove(name)
            return Answer(204)
        if lab is None:
            return Answer(404, "lab_not_found")
        del lab.references[:1]
        return Answer(204)

    def destroy(self, client: Client, force: bool) -> Answer:
        """DELETE /lab."""
        if client not in self.active:
            return Answer(423, "session_waiting")
        lab = self.lab_of(client)
        if lab is None:
            return Answer(204)
        if lab.references and not force:
            return Answer(409, "lab_in_use")
        del self.labs[client.slot or 0]
        return Answer(202)

    def end(self, client: Client) -> Answer:
        """DELETE /session: its lab goes with it, unless it is idle and labs are kept warm."""
        lab = self.lab_of(client)
        if lab is not None and self.warm and not lab.references:
            lab.owner = None
        elif lab is not None:
            del self.labs[client.slot or 0]
        self.queue.remove(client)
        self.ended.append(client.session_id)
        return Answer(204)

"""Who calls and what they may: the vocabulary of tokens and rights. How callers are recognised is not known here."""

from __future__ import annotations

from dataclasses import dataclass

USE, TRUSTED, ADMIN = "use", "trusted", "admin"
RIGHTS = (USE, TRUSTED, ADMIN)
"""In the order in which they are shown; none of them includes another."""


@dataclass(frozen=True)
class Caller:
    """Who a request comes from, and what they may."""

    name: str | None
    """The name of their token; None where the server runs open."""
    token_id: int | None
    """The token that what they open belongs to."""
    rights: frozenset[str]

    @property
    def may_use(self) -> bool:
        """Whether they may open sessions and boot labs."""
        return USE in self.rights

    @property
    def is_trusted(self) -> bool:
        """Whether what they upload may be any program, also where no sandbox holds it."""
        return TRUSTED in self.rights

    @property
    def is_admin(self) -> bool:
        """Whether they see everybody's sessions, and may end them."""
        return ADMIN in self.rights


OPEN = Caller(None, None, frozenset({USE, ADMIN}))
"""Who calls a server that runs open: anybody, and everything is everybody's."""

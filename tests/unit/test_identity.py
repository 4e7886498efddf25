"""The identity of a lab."""

from __future__ import annotations

import hashlib

from remote_lab.identity import lab_identity


def test_identity_of_a_topology_alone_is_its_sha256() -> None:
    """Existing scripts compare it with `sha256sum topology.yml`."""
    assert hashlib.sha256(b"nodes: [r1]\n").hexdigest() == lab_identity(b"nodes: [r1]\n", {})


def test_a_changed_extra_file_is_a_different_lab() -> None:
    """The content of every file counts, and the path it lies at."""
    identities = {
        lab_identity(b"a", {}),
        lab_identity(b"a", {"x": b"1"}),
        lab_identity(b"a", {"x": b"2"}),
        lab_identity(b"a", {"y": b"1"}),
        lab_identity(b"b", {"x": b"1"}),
    }
    assert len(identities) == 5


def test_the_order_of_extra_files_plays_no_part() -> None:
    """A client may send them as it likes."""
    assert lab_identity(b"a", {"x": b"1", "y": b"2"}) == lab_identity(b"a", {"y": b"2", "x": b"1"})

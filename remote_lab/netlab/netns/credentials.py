"""What lets a user into the nodes of a lab."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from remote_lab.netlab.netns import lab
from remote_lab.netlab.netns.tools import output

_KEYS = Path("/run/netns-keys")
_LOGIN_KEY = _KEYS / lab.LOGIN_KEY.name
_PUBLIC_KEY = _LOGIN_KEY.with_suffix(".pub")
_HOST_KEY = _KEYS / "host_key"


@dataclass(frozen=True)
class Credentials:
    """What lets a user into every node of a lab."""

    password_hash: str
    public_key: str
    host_key: bytes


def make_keys() -> None:
    """Make the keys of this lab, once: a login key, and one host key for all nodes."""
    partial = _KEYS.with_suffix(".new")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(mode=0o700)
    output("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(partial / _LOGIN_KEY.name))
    output("dropbearkey", "-t", "ed25519", "-f", str(partial / _HOST_KEY.name))
    partial.rename(_KEYS)


def make_credentials(password: str) -> Credentials:
    """Return what lets a user into the nodes; the login key is put into `netns_files/`."""
    if not _KEYS.exists():
        make_keys()
    lab.KEY_DIRECTORY.mkdir(exist_ok=True)
    for key in (_LOGIN_KEY, _PUBLIC_KEY):
        copy = lab.KEY_DIRECTORY / key.name
        copy.unlink(missing_ok=True)
        shutil.copy(key, copy)
    return Credentials(
        password_hash=output("openssl", "passwd", "-6", "-stdin", stdin=password).strip(),
        public_key=_PUBLIC_KEY.read_text().strip(),
        host_key=_HOST_KEY.read_bytes(),
    )

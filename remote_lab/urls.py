"""What of a URL may be shown, and kept."""

from __future__ import annotations

import re


def without_user_info(url: str) -> str:
    """Return a URL without the user and password in it; any text is taken, also what is no URL."""
    return re.sub(r"//[^/?#]*@", "//", url, count=1)


def without_secrets(url: str) -> str:
    """Return a URL without all that may open something: user, password, query and fragment."""
    return re.split(r"[?#]", without_user_info(url), maxsplit=1)[0]

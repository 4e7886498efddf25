"""What of a URL may be shown."""

from __future__ import annotations

import re


def without_user_info(url: str) -> str:
    """Return a URL without the user and password in it; any text is taken, also what is no URL."""
    return re.sub(r"//[^/?#]*@", "//", url, count=1)

"""Where a browser may be sent after a log-in: a path on this host, so that no link can lead anybody elsewhere."""

from __future__ import annotations

import re

# Without fragment: that is where a log-in's code goes. Browsers read `\` as `/`, and skip tabs.
PATH = re.compile(r"/(?!/)[!\"$-\[\]-~]{0,499}")


def is_on_this_host(path: str) -> bool:
    """True for a path of at most 500 ASCII characters, whatever a browser makes of it."""
    return bool(PATH.fullmatch(path))

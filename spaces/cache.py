"""Where this user's caches lie: what can be made again at any time."""

from __future__ import annotations

import os
from pathlib import Path


def default_cache() -> Path:
    """`$NETCARVE_CACHE`, else the user's cache folder."""
    if configured := os.environ.get("NETCARVE_CACHE"):
        return Path(configured)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "netcarve"

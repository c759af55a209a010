"""Where a user's data and a host's runtime files live."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from search.errors import SearchError


def working_home() -> Path:
    """The folder of the database and the artifacts: `NETCARVE_HOME`, else `./netcarve-home`."""
    return Path(os.environ.get("NETCARVE_HOME") or "netcarve-home").absolute()


def supernet_folder(home: Path, key: str) -> Path:
    """Where the checkpoints and the weights of a supernet lie; those of all are side by side."""
    return home / "supernets" / key


def runtime_folder() -> Path:
    """The private folder of this user on this host for locks and Ray's session files, created.

    `NETCARVE_RUNTIME_DIR`, else `/tmp/netcarve-UID`: one place, whatever `TMPDIR` is, or two
    processes would take two host locks. Not `XDG_RUNTIME_DIR`, which is emptied at logout, when a
    job started with `nohup` still runs.

    Raises:
        SearchError: the path exists and belongs to someone else, or is not a folder.
    """
    configured = os.environ.get("NETCARVE_RUNTIME_DIR")
    folder = Path(configured or f"/tmp/netcarve-{os.getuid()}").absolute()  # noqa: S108 - checked
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise SearchError(
            f"cannot create the runtime folder {folder}: {error.strerror}. "
            "Set NETCARVE_RUNTIME_DIR to a folder of your own."
        ) from error
    # Another user could have planted a folder or a link at the predictable name in /tmp.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise SearchError(
            f"the runtime folder {folder} is not a folder of this user. "
            "Set NETCARVE_RUNTIME_DIR to a folder of your own."
        )
    return folder

"""Bundles on this machine: a bundle that is measured again owns its host meanwhile."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from pathlib import Path

from compilers.bundle import Verification, verify_bundle
from compilers.profile import Profile, profile_bundle
from compilers.signature import Signature
from search.host_lock import HostLock, announce
from search.plots import plot_roofline
from search.progress import Progress, silent
from spaces.files import atomic_write_bytes, atomic_write_text

PROFILE_NAME = "profile.json"
ROOFLINE_NAME = "roofline.png"


def verify(
    path: str | Path,
    measure: bool = True,
    progress: Progress = silent,
    signature: Signature | None = None,
) -> Verification:
    """Check a bundle's signature where one is given, its hashes and outputs, then measure it while
    no other work runs here.

    Args:
        path: Folder or .tar.gz.
        measure: Whether to measure; without it nothing is waited for.
        progress: Told for whom the host lock keeps it waiting.
        signature: What must vouch for the bundle.

    Raises:
        BundleError: The signature is not that of the key; a file is missing, corrupt, or not for
            this processor; or outputs differ.
        HostLockError: The host lock cannot be taken.
    """
    if not measure:
        return verify_bundle(path, measure=False, signature=signature)
    alone = _alone(f"measuring the bundle {path}", progress)
    return verify_bundle(path, measuring=alone, signature=signature)


def profile(path: str | Path, progress: Progress = silent) -> Profile:
    """Measure a bundle kernel by kernel while no other work runs here.

    Args:
        path: Folder or .tar.gz.
        progress: Told for whom the host lock keeps it waiting.

    Raises:
        BundleError: A file is missing, corrupt, or not for this processor.
        HostLockError: The host lock cannot be taken.
    """
    return profile_bundle(path, measuring=_alone(f"profiling the bundle {path}", progress))


def write_profile(found: Profile, folder: str | Path) -> Path:
    """Write `profile.json` and `roofline.png`; returns the folder."""
    target = Path(folder)
    text = json.dumps(found.to_json(), indent=2, allow_nan=False)
    atomic_write_bytes(target / ROOFLINE_NAME, plot_roofline(found))
    atomic_write_text(target / PROFILE_NAME, text + "\n")
    return target


def _alone(purpose: str, progress: Progress) -> AbstractContextManager[None]:
    """The host lock, held exclusively; who holds it meanwhile is told."""
    return HostLock().exclusive(purpose, on_wait=announce(progress))

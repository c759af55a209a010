"""Bundles on this machine: a bundle that is measured again owns its host meanwhile."""

from __future__ import annotations

from pathlib import Path

from compilers.bundle import Verification, verify_bundle
from search.host_lock import Holder, HostLock
from search.progress import Progress, silent


def verify(path: str | Path, measure: bool = True, progress: Progress = silent) -> Verification:
    """Check a bundle's hashes, then its outputs, then measure it while no other work runs here.

    Args:
        path: Folder or .tar.gz.
        measure: Whether to measure; without it nothing is waited for.
        progress: Told for whom the host lock keeps it waiting.

    Raises:
        BundleError: A file is missing, corrupt, or not for this processor; or outputs differ.
        HostLockError: The host lock cannot be taken.
    """

    def waiting(holders: tuple[Holder, ...], _seconds: float) -> None:
        names = ", ".join(map(str, holders)) or "another process"
        progress(f"waiting for {names}", 0, 0)

    if not measure:
        return verify_bundle(path, measure=False)
    alone = HostLock().exclusive(f"measuring the bundle {path}", on_wait=waiting)
    return verify_bundle(path, measuring=alone)

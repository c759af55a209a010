"""Bundles of a job's front, and whatever else a user picks from its verified subnets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from compilers.built import Build
from compilers.bundle import BundleInfo, write_bundle
from compilers.devices import DEVICES
from compilers.errors import CompilerError
from compilers.runtime import MANIFEST, BundleRuntimeError, check_hashes, read_manifest
from search.artifacts import ArtifactStore
from search.data_reader import DataReader
from search.errors import SearchError, VerificationError
from search.finetuning import Finetuner
from search.job import ExportSettings
from search.models import BundleRow, JobRow, Purpose
from search.progress import Progress, silent
from search.replay import replayed
from search.results import DeviceResults, Verified
from search.session import JobSession
from search.store import Store
from search.stored_job import device_results, job_devices
from spaces import UnknownNameError
from spaces.files import sha256_file
from supernet import DataSplits, resize

# Images that a binary is run on at once.
_IMAGES = 2048


def export_front(
    store: Store,
    artifacts: ArtifactStore,
    job_id: str,
    folder: str | Path,
    *,
    home: Path,
    device: str | None = None,
    keys: Sequence[str] | None = None,
    progress: Progress = silent,
    reader: DataReader | None = None,
) -> list[Path]:
    """Write bundles of a job below `folder`, a folder per device.

    Args:
        store: The open store.
        artifacts: Where extracted subnets lie.
        job_id: The job; it need not be finished.
        folder: Receives `DEVICE/KEY/` and, as the job says, `DEVICE/KEY.tar.gz`.
        home: The working home, where the job's builds lie.
        device: Only this device.
        keys: Config keys of verified subnets; default: the front, at most as many members as the
            job's `export.bundles`, evenly spread.
        progress: Told about every bundle.
        reader: Has read the job's data, or will; default: it is read here.

    Returns:
        The folders of this job's bundles, written or found whole and up to date; a member whose
        bundle cannot be written is left out, and so are devices that run no compiled library.

    Raises:
        UnknownNameError: No such job, device or verified config.
        SearchError: Nothing has been verified yet, or the job is a replay.
        VerificationError: Not one bundle could be written.
    """
    job = store.jobs.job(job_id)
    if (source := replayed(job)) is not None:
        raise SearchError(f"job {job_id} replays {source} and built nothing; export {source}")
    names = job_devices(job)
    if device is not None and device not in names:
        raise UnknownNameError("device of this job", device, names)
    names = [name for name in names if device in (None, name) and _deploys(job, name)]
    if not names:
        return []
    limit = ExportSettings.model_validate(job.spec["settings"]["export"]).bundles
    chosen = {name: _chosen(device_results(store, job, name), keys, limit) for name in names}
    for key in keys or ():
        if not any(key == v.config.key for members in chosen.values() for v in members):
            raise UnknownNameError("verified config", key, _front_keys(store, job, chosen))
    if not any(chosen.values()):
        raise SearchError(f"job {job_id} has no verified subnet to export yet; run or resume it")
    target = Path(folder).absolute()
    wanted = {(name, v.config.key): v for name, vs in chosen.items() for v in vs}
    places = {(name, key): target / name / key for name, key in wanted}
    rows = {(row.device, row.config_key): row for row in store.results.bundles(job_id)}
    good = {k for k, v in wanted.items() if k in rows and _unchanged(places[k], rows[k], v)}
    missing = {
        name: [v for v in members if (name, v.config.key) not in good]
        for name, members in chosen.items()
    }
    if any(missing.values()):
        session = JobSession(store, artifacts, job, home, progress, reader)
        with session, store.jobs.phase(job_id, "export"):
            written, failures = _write_all(session, job, missing, target)
        good |= written
        if not good:
            raise VerificationError(f"no bundle could be written; the first: {failures[0]}")
    return [place for key, place in places.items() if key in good]


def _deploys(job: JobRow, device: str) -> bool:
    return DEVICES.get(job.spec["device_configs"][device]["kind"]).deploys


def _unchanged(place: Path, row: BundleRow, member: Verified) -> bool:
    """Whether the bundle that this job recorded lies there whole, with the latency that the
    results give."""
    if row.path != str(place) or row.metrics.get("measurement") != member.measurement_id:
        return False
    try:
        check_hashes(place, read_manifest(place))
    except BundleRuntimeError:
        return False
    return sha256_file(place / MANIFEST) == row.manifest_sha256


def _chosen(results: DeviceResults, keys: Sequence[str] | None, limit: int) -> list[Verified]:
    if keys is None:
        front = results.front
        places = np.linspace(0, len(front) - 1, min(limit, len(front))).round().astype(int)
        chosen = [front[int(place)] for place in places]
    else:
        chosen = [v for v in results.verified if v.config.key in set(keys)]
    return [results.deployed(v) for v in chosen]


def _front_keys(store: Store, job: JobRow, devices: Iterable[str]) -> list[str]:
    """The keys of the devices' fronts: of all verified configs the likeliest to be meant."""
    return [v.config.key for name in devices for v in device_results(store, job, name).front]


def _write_all(
    session: JobSession, job: JobRow, chosen: Mapping[str, list[Verified]], folder: Path
) -> tuple[set[tuple[str, str]], list[str]]:
    """Write a bundle of every chosen subnet.

    Returns:
        (device, config key) of every bundle that was written, and why each other one was not.

    Raises:
        VerificationError: Nothing at all could be built for a device.
    """
    total, done = sum(map(len, chosen.values())), 0
    written: set[tuple[str, str]] = set()
    failures: list[str] = []
    session.progress("export: bundles", 0, total)
    for name, members in chosen.items():
        builds = _builds(session, name, members)
        for member in members:
            key = member.config.key
            if key in builds:
                try:
                    # Not while another job measures on this host.
                    with session.lock.shared(f"export of {job.id}", on_wait=session.waiting):
                        _write(session, job, name, member, builds[key], folder / name / key)
                    written.add((name, key))
                except CompilerError as error:
                    # One bundle that is refused must not cost the others.
                    data = {"config_key": key, "error": type(error).__name__, "message": str(error)}
                    session.store.jobs.record_event(job.id, "failure", "export", data=data)
                    failures.append(f"{key}: {error}")
            else:
                failures.append(f"{key}: it cannot be built for {name}")
            done += 1
            session.progress("export: bundles", done, total)
    return written, failures


def _builds(session: JobSession, device: str, members: Sequence[Verified]) -> dict[str, Build]:
    """Config key -> build of what each member deploys, for every one that can be built."""
    tuned = [m.config for m in members if m.purpose is Purpose.FINETUNED]
    plain = [m.config for m in members if m.purpose is not Purpose.FINETUNED]
    builds = session.verifier.build(device, plain, "export")
    return builds | Finetuner.beside(session.verifier).build(device, tuned, "export")


def _write(
    session: JobSession, job: JobRow, device: str, member: Verified, build: Build, path: Path
) -> None:
    accuracy = binary_accuracy(session, device, build, session.data)
    info = BundleInfo(
        config=member.config.active(),
        space=job.spec["settings"]["space"],
        accuracy=accuracy,
        measured=member.measurement,
        predicted_ms=member.predicted_ms,
        predicted_std_ms=member.predicted_ms_std,
        extra={
            "job": job.id,
            "seed": job.seed,
            "data": job.settings["data"],
            "supernet": job.spec["supernet_key"],
            "selection_accuracy": member.accuracy,
            "class_names": list(session.data.names),
            "finetuned": member.purpose is Purpose.FINETUNED,
        },
    )
    device_object = session.verifier.devices[device]
    write_bundle(path, build, device_object, info, session.settings.export.archive)
    session.store.results.record_bundle(
        job.id,
        device,
        member.config.key,
        path=str(path),
        manifest_sha256=sha256_file(path / MANIFEST),
        metrics={"report_accuracy": accuracy, "measurement": member.measurement_id},
    )


def binary_accuracy(session: JobSession, device: str, build: Build, data: DataSplits) -> float:
    """Accuracy of a compiled binary on the report split, 0 to 1."""
    runner, report = session.verifier.devices[device], data.report
    right = 0
    for start in range(0, len(report), _IMAGES):
        images = resize(report.images[start : start + _IMAGES], build.specs[0].in_size).numpy()
        logits = runner.run(build, images)
        labels = report.labels[start : start + _IMAGES].numpy()
        right += int((logits.argmax(axis=1) == labels).sum())
    return right / len(report)

"""Everything that is open while a job works: data, devices, executor, verifier."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from compilers.devices import Device, make_device, parse_device
from compilers.errors import DeviceError
from search.artifacts import ArtifactStore
from search.data_reader import DataReader
from search.errors import SearchError
from search.execution import Executor
from search.home import supernet_folder
from search.host_lock import HostLock, announce
from search.job import JobSettings
from search.models import JobRow
from search.progress import Progress
from search.replay import replayed
from search.store import Store
from search.stored_job import job_space
from search.verification import Verifier
from spaces import DeviceCapabilities, SearchSpace

RESOURCES = "resources"


class JobSession:
    """A context in which a stored job can verify subnets and write bundles.

    Args:
        store: The open store.
        artifacts: Where supernets and subnets go.
        job: The stored job.
        home: The working home.
        progress: Told about every step.
        reader: Has read the data, or will; default: it is read here.

    Raises:
        DataError: The data cannot be loaded.
        SearchError: The data, or the teacher, is not what the job was started with.
        CheckpointError: The supernet is not trained yet, and its teacher cannot be read.
        DeviceError: When it is entered: a device is not the one that was probed for the job, or
            cannot be reached.
    """

    def __init__(
        self,
        store: Store,
        artifacts: ArtifactStore,
        job: JobRow,
        home: Path,
        progress: Progress,
        reader: DataReader | None = None,
    ) -> None:
        self.store = store
        self.artifacts = artifacts
        self.job = job
        self.home = home
        self.progress = progress
        self.waiting = announce(progress)
        self.folder = home / "jobs" / job.id
        resources = store.jobs.checkpoint(job.id, RESOURCES) or {}
        self.settings = JobSettings.model_validate(job.settings | {RESOURCES: resources})
        self.space = job_space(job)
        self.spaces = {
            name: SearchSpace.from_json(space) for name, space in job.spec["device_spaces"].items()
        }
        data = (reader or DataReader()).read(self.settings.data, progress)
        self.data, self.data_identity = data.splits, data.identity
        self.supernet_folder = supernet_folder(home, str(job.spec["supernet_key"]))
        self._check_unchanged()
        self.lock = HostLock()
        self._stack = ExitStack()

    def __enter__(self) -> JobSession:
        with ExitStack() as stack:
            # A replay asks no device, so it may happen on another host.
            names = () if replayed(self.job) else self.job.spec["devices"]
            devices = {name: self._device(name, stack) for name in names}
            self.executor = stack.enter_context(Executor(self.settings.resources))
            self._stack = stack.pop_all()
        self.verifier = Verifier(
            job_id=self.job.id,
            settings=self.settings,
            space=self.space,
            supernet=self.supernet_folder,
            folder=self.folder,
            devices=devices,
            store=self.store,
            artifacts=self.artifacts,
            executor=self.executor,
            lock=self.lock,
            progress=self.progress,
            waiting=self.waiting,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _check_unchanged(self) -> None:
        """Refuse other data than the job was started with, and while it still teaches, another
        teacher."""
        data, key = self.settings.data, self.supernet_folder.name
        trained = self.store.results.supernet(key)
        known = None if trained is None else trained.metrics.get("data_identity")
        changed = f"the data of job {self.job.id} ({data.path or data.name}) has"
        if known is not None:
            same = known == self.data_identity
        else:
            same = self.settings.supernet.key(self.space.key, self.data_identity) == key
            if (teacher := self.settings.supernet.teacher) is not None:
                changed = f"{changed.removesuffix(' has')} or its teacher ({teacher}) has"
        if not same:
            raise SearchError(
                f"{changed} changed since the job was started; restore it, or start a new job"
            )

    def _device(self, name: str, stack: ExitStack) -> Device:
        """The device, for the instruction set that its probe found: `native` may mean another one
        where a build runs. Latencies of two processors do not belong in one job."""
        probed = DeviceCapabilities.from_json(self.job.spec["capabilities"][name])
        config = parse_device(self.job.spec["device_configs"][name])
        belongs = (
            f"device {name!r} of job {self.job.id} is {probed.hardware} with {probed.isa}; "
            "continue the job there, or start a new one here."
        )
        try:
            device = stack.enter_context(make_device(config.model_copy(update={"isa": probed.isa})))
        except DeviceError as error:
            raise DeviceError(f"{belongs} {error}") from error
        if device.hardware != probed.hardware:
            raise DeviceError(f"{belongs} Now it is {device.hardware} with {probed.isa}")
        return device

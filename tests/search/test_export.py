"""Bundles from real builds of an untrained subnet: which are written, which are returned."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass

import pytest
import torch

from compilers.devices import DeviceConfig, make_device
from compilers.measurement import Measurement
from search.devices import add_device
from search.errors import VerificationError
from search.export import export_front
from search.finetuned import record_finetuned
from search.job import parse_job
from search.models import JobRow, Purpose
from search.progress import silent
from search.session import JobSession
from search.stored_job import device_results
from search.workspace import Workspace, open_workspace
from spaces import Config, cost
from spaces.files import sha256_file
from supernet import build_supernet, save_subnet

pytestmark = pytest.mark.slow
DEVICE = "cpu-avx2"


@dataclass(frozen=True)
class Found:
    """A job with two verified subnets on its front, of which only `good` can be built."""

    work: Workspace
    job: JobRow
    good: Config
    bad: Config

    def export(self, folder, *configs):
        keys = [config.key for config in configs] or None
        work = self.work
        return export_front(
            work.store, work.artifacts, self.job.id, folder, home=work.home, keys=keys
        )

    def measured(self, config, purpose, ms):
        timed = Measurement(ms, ms, ms, 40, 10, "clock", 1.0, 0.01, 1)
        self.work.store.results.record_measurement(
            self.job.id,
            config.key,
            config.to_json(),
            DEVICE,
            purpose,
            timed.to_json(),
            {"generation": 1},
        )

    @property
    def build(self):
        (build,) = (self.work.home / "jobs" / self.job.id / "builds").glob(f"*/{self.good.key}")
        return build


@pytest.fixture
def found(tmp_path, tiny_job, executor, build) -> Found:
    settings = parse_job(tiny_job)
    space = settings.search_space()
    good, bad = space.min_config(), space.max_config()
    with open_workspace(tmp_path / "home") as work:
        device = add_device(work.store, {"name": DEVICE, "isa": "avx2"})
        spec = {
            "settings": settings.decisive(),
            "space": space.to_json(),
            "supernet_key": settings.supernet.key(space.key, settings.data.identity()),
            "devices": [DEVICE],
            "device_configs": {DEVICE: device.config},
            "capabilities": {DEVICE: device.capabilities.to_json()},
            "device_spaces": {DEVICE: space.to_json()},
        }
        job, _ = work.store.jobs.record_job("tiny", spec, space.key, 0)
        # Larger and better: both are on the front.
        for config, accuracy in ((good, 0.9), (bad, 0.95)):
            total = cost(space.layer_specs(config))
            work.store.results.record_evaluation(
                job.id,
                config.key,
                config.to_json(),
                accuracy=accuracy,
                loss=0.1,
                count=100,
                split="selection",
                costs={"macs": total.macs, "params": total.params, "bytes": total.bytes},
                seconds=1.0,
            )
        with JobSession(work.store, work.artifacts, job, work.home, silent) as session:
            place = session.verifier.build_folder(DEVICE, good)
        shutil.copytree(build, place)
        found = Found(work, job, good, bad)
        found.measured(good, Purpose.VERIFY, 0.2)
        found.measured(bad, Purpose.VERIFY, 0.9)
        yield found


@pytest.fixture(scope="module")
def build(tmp_path_factory, tiny_job, runtime_dir):
    """The folder of the smallest subnet's build."""
    torch.manual_seed(0)
    space = parse_job(tiny_job).search_space()
    folder = tmp_path_factory.mktemp("build")
    subnet = build_supernet(space).extract(space.min_config()).eval()
    save_subnet(subnet, folder / "subnet")
    with make_device(DeviceConfig(name=DEVICE, isa="avx2")) as device:
        device.build(subnet, subnet.specs, folder / "build")
    return folder / "build"


def _manifest(folder):
    return json.loads((folder / "manifest.json").read_text())


def test_a_bundle_follows_the_last_measurement(found, tmp_path):
    (folder,) = found.export(tmp_path / "out", found.good)
    assert _manifest(folder)["latency"]["measured"]["median_ms"] == 0.2
    found.measured(found.good, Purpose.FINAL, 0.3)
    assert found.export(tmp_path / "out", found.good) == [folder]
    results = device_results(found.work.store, found.job, DEVICE)
    shown = {v.config.key: v.measured_ms for v in results.verified}
    assert _manifest(folder)["latency"]["measured"]["median_ms"] == shown[found.good.key] == 0.3

    written = folder.stat().st_ino
    assert found.export(tmp_path / "out", found.good) == [folder]
    assert folder.stat().st_ino == written, "what is up to date is not written again"
    (folder / "library.so").write_bytes(b"")
    assert found.export(tmp_path / "out", found.good) == [folder]
    assert folder.stat().st_ino != written
    assert sha256_file(folder / "library.so") == _manifest(folder)["files"]["library.so"]["sha256"]


def test_what_was_fine_tuned_is_exported(found, tmp_path):
    (folder,) = found.export(tmp_path / "out", found.good)
    extra = _manifest(folder)["extra"]
    assert (extra["finetuned"], extra["selection_accuracy"]) == (False, 0.9)
    # Its build and subnet lie beside those of the search.
    job_folder, key = found.build.parents[2], found.good.key
    shutil.copytree(found.build, job_folder / "finetuned" / found.build.relative_to(job_folder))
    (job_folder / "finetuned" / "subnets" / key).mkdir(parents=True)
    values = {"accuracy": 0.93, "loss": 0.1, "seconds": 1.0, "artifact": "sha256:0"}
    record_finetuned(found.work.store, found.job.id, key, **values)
    found.measured(found.good, Purpose.FINETUNED, 0.25)
    assert found.export(tmp_path / "out", found.good) == [folder]
    manifest = _manifest(folder)
    assert manifest["latency"]["measured"]["median_ms"] == 0.25
    extra = manifest["extra"]
    assert (extra["finetuned"], extra["selection_accuracy"]) == (True, 0.93)
    assert "class_names" in extra
    (member, *_) = device_results(found.work.store, found.job, DEVICE).members()
    assert (member.accuracy, member.measured_ms) == (90.0, 0.2)
    assert (member.finetuned_accuracy, member.finetuned_ms) == (93.0, 0.25)


def test_only_bundles_of_this_job_are_returned(found, tmp_path):
    for config in (found.good, found.bad):
        foreign = tmp_path / "out" / DEVICE / config.key
        foreign.mkdir(parents=True)
        (foreign / "manifest.json").write_text('{"extra": {"job": "another"}}')
    (folder,) = found.export(tmp_path / "out")
    assert folder.name == found.good.key
    assert _manifest(folder)["extra"]["job"] == found.job.id


def test_an_export_without_a_bundle_is_an_error(found, tmp_path):
    (found.build / "library.so").write_bytes(b"no library")
    with pytest.raises(VerificationError, match="no bundle could be written"):
        found.export(tmp_path / "out", found.good, found.bad)
    phases = [event.phase for event in found.work.store.jobs.events(found.job.id, "failure")]
    assert sorted(phases) == [f"build for {DEVICE}", "export"]

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from cli.main import app

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits.yaml"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty home folder that every command of the test uses."""
    for name in ("NETCARVE_DB", "NETCARVE_ARTIFACTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETCARVE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETCARVE_RUNTIME_DIR", str(tmp_path / "runtime"))
    return tmp_path / "home"


@pytest.fixture
def netcarve(home):
    """Run a command in this process; `.exit_code`, `.stdout`, `.stderr`."""

    def call(*arguments):
        return CliRunner().invoke(app, list(map(str, arguments)), prog_name="netcarve")

    return call


@pytest.fixture
def job_file(tmp_path):
    """Write the example job with some keys replaced, or removed when None."""

    def write(**changes):
        job = yaml.safe_load(EXAMPLE.read_text())
        job |= changes
        path = tmp_path / "job.yaml"
        path.write_text(yaml.safe_dump({k: v for k, v in job.items() if v is not None}))
        return path

    return write


@pytest.fixture
def finished_job(home, tmp_path):
    """Id of a stored job on devices `fast` and `slow`: three configs verified on `fast`, of which
    the middle one is dominated, and none on `slow`.
    """
    from compilers.measurement import Measurement
    from search.devices import add_device
    from search.job import load_job
    from search.models import JobState, Purpose
    from search.workspace import open_store
    from spaces import cost

    settings = load_job(EXAMPLE)
    space = settings.search_space()
    small, large = space.min_config(), space.max_config()
    middle = space.config(small.to_json() | {"resolution": 32})
    with open_store(home) as store:
        devices = [add_device(store, {"name": name}) for name in ("fast", "slow")]
        spec = {
            "settings": settings.decisive(),
            "space": space.to_json(),
            "log10_size": space.log10_size,
            "supernet_key": "0" * 16,
            "data": {"train": 1, "selection": 1, "report": 1},
            "devices": [device.name for device in devices],
            "device_configs": {device.name: device.config for device in devices},
            "device_spaces": {device.name: space.to_json() for device in devices},
            "capabilities": {device.name: device.capabilities.to_json() for device in devices},
        }
        job, _ = store.jobs.record_job("digits", spec, space.key, 0)
        found = [(small, 0.95, 0.2, None), (middle, 0.94, 0.3, 0.31), (large, 0.99, 0.9, 0.8)]
        for config, accuracy, ms, predicted in found:
            total = cost(space.layer_specs(config))
            store.results.record_evaluation(
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
            timed = Measurement(ms, ms * 0.9, ms * 1.1, 40, 10, "clock", 1.0, 0.01, 1)
            store.results.record_measurement(
                job.id,
                config.key,
                config.to_json(),
                "fast",
                Purpose.VERIFY,
                timed.to_json(),
                extra={
                    "generation": 0 if predicted is None else 1,
                    "predicted_ms": predicted,
                    "predicted_ms_std": 0.1,
                },
            )
        store.results.record_bundle(
            job.id,
            "fast",
            large.key,
            path=str(tmp_path / "bundles" / large.key),
            manifest_sha256="0" * 64,
            metrics={"report_accuracy": 0.985},
        )
        store.jobs.claim(job.id).finish(JobState.DONE)
        return job.id


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    """A bundle of a stem, a pool and a classifier with random weights."""
    import torch

    from compilers.bundle import BundleInfo, write_bundle
    from compilers.devices import DeviceConfig, LocalCpu
    from spaces import Activation, LayerSpec, Operator, tensor_layout
    from supernet.extract import subnet_from_tensors

    specs = (
        LayerSpec("stem", Operator.CONV, 1, 16, 12, 6, 3, 2, activation=Activation.HARDSWISH),
        LayerSpec("pool", Operator.GLOBAL_POOL, 16, 16, 6, 1),
        LayerSpec("classifier", Operator.LINEAR, 16, 10),
    )
    torch.manual_seed(0)
    layout = {name: shape for spec in specs for name, (_, shape) in tensor_layout(spec).items()}
    subnet = subnet_from_tensors(specs, {name: torch.randn(s) for name, s in layout.items()})
    folder = tmp_path_factory.mktemp("bundle")
    with LocalCpu(DeviceConfig(name="cpu"), folder / "cache") as device:
        build = device.build(subnet, specs, folder / "build")
        return write_bundle(folder / "subnet", build, device, BundleInfo({"a": 1}, "test", 0.5))


@pytest.fixture
def damaged(bundle, tmp_path):
    """A copy of the bundle; `damage` one of its files."""
    folder = tmp_path / "damaged"
    shutil.copytree(bundle, folder)
    return folder

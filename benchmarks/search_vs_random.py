"""This search against random search, at equal verified evaluations.

For five seeds both search the same trained supernet of the digits space on this machine's CPU.
The subnets of both fronts are then measured again, interleaved in one session, and the
hypervolume of accuracy (selection split) and log latency is compared. The reference point is the
worst accuracy and the worst latency of everything that either of them verified.

Run it on an idle machine: `python benchmarks/search_vs_random.py [--json FILE]`. The supernet is
trained first (minutes) unless `make search` has left it in the home folder.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from _figures import report, show_figures

from compilers import Build
from search.job import JobSettings, Strategy, load_job, parse_job
from search.loop import run_job
from search.pareto import hypervolume
from search.results import DeviceResults, Verified
from search.session import JobSession
from search.stored_job import device_results, job_devices
from search.workspace import Workspace, open_workspace

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "digits.yaml"
SEEDS = range(5)
TARGETS = {"hv_ratio": [">=", 1.02]}


def settings_for(seed: int, strategy: Strategy) -> JobSettings:
    """The example job on one device and two objectives, with this seed and strategy."""
    content: dict[str, Any] = load_job(EXAMPLE).model_dump(mode="json")
    content |= {"name": f"bench-{strategy.value}", "seed": seed, "constraints": []}
    content["devices"] = content["devices"][:1]
    # Both search exactly what the hypervolume compares.
    compared = ("accuracy", "latency")
    content["objectives"] = [o for o in content["objectives"] if o["name"] in compared]
    content["search"] |= {"strategy": strategy.value, "precision_twins": 0}
    return parse_job(content)


def verified_by(workspace: Workspace, settings: JobSettings) -> tuple[JobSession, DeviceResults]:
    """Run (or find) the job and give what its search verified."""
    job_id = run_job(settings, workspace.store, workspace.artifacts, workspace.home, report)
    job = workspace.store.jobs.job(job_id)
    session = JobSession(workspace.store, workspace.artifacts, job, workspace.home, report)
    device = job_devices(job)[0]
    return session, device_results(workspace.store, job, device, settings.search.generations)


def measured_together(
    session: JobSession, other: JobSession, ours: list[Verified], random: list[Verified]
) -> dict[str, float]:
    """Config key -> latency in ms, both fronts measured in one interleaved session."""
    device = job_devices(session.job)[0]
    builds: dict[str, Build] = {}
    for owner, members in ((session, ours), (other, random)):
        with owner:
            builds |= owner.verifier.build(device, [v.config for v in members], "front")
    with session, session.lock.exclusive("benchmark"):
        found = session.verifier.devices[device].time(list(builds.values()))
    return {key: m.median_ms for key, m in zip(builds, found, strict=True)}


def volume(members: list[Verified], latency: dict[str, float], worst: np.ndarray) -> float:
    """Hypervolume of error and log latency below the reference point."""
    points = [[1 - v.accuracy, np.log(latency[v.config.key])] for v in members]
    return hypervolume(np.array(points), worst)


def one_seed(workspace: Workspace, seed: int) -> tuple[int, float, float]:
    """Verified evaluations of each, and both hypervolumes."""
    evolution = settings_for(seed, Strategy.EVOLUTION)
    session, ours = verified_by(workspace, evolution)
    other_session, random = verified_by(workspace, settings_for(seed, Strategy.RANDOM))
    count = min(len(ours.verified), len(random.verified))
    if len(ours.verified) != len(random.verified):
        raise SystemExit(f"unequal budgets: {len(ours.verified)} and {len(random.verified)}")
    latency = measured_together(session, other_session, ours.front, random.front)
    union = [*ours.verified, *random.verified]
    worst = np.array(
        [
            max(1 - v.accuracy for v in union),
            np.log(max(*(v.measured_ms for v in union), *latency.values())),
        ]
    )
    return count, volume(ours.front, latency, worst), volume(random.front, latency, worst)


def main() -> None:
    """Print a table; with --json write figures and targets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--home", type=Path, default=Path("netcarve-home"))
    arguments = parser.parse_args()
    rows = []
    with open_workspace(arguments.home) as workspace:
        for seed in SEEDS:
            count, ours, random = one_seed(workspace, seed)
            rows.append((seed, count, ours, random, ours / random))
            print(f"seed {seed}: {ours:.5f} / {random:.5f} = {ours / random:.4f}", flush=True)
    print("\nseed  evaluations  search   random   ratio")
    for seed, count, ours, random, ratio in rows:
        print(f"{seed:4d}  {count:11d}  {ours:.5f}  {random:.5f}  {ratio:.4f}")
    figures = {"hv_ratio": statistics.mean(row[-1] for row in rows)}
    show_figures(figures, TARGETS, arguments.json)


if __name__ == "__main__":
    main()

"""Accuracy of the best subnet that the example job finds, over three split seeds.

Every split seed is a job of its own: another supernet, another search. The best subnet is chosen
on the selection split, on either device; what counts is the accuracy of its compiled binary on
the report split, which no part of the job has seen. The seeds were used for nothing else.

Run `python benchmarks/digits_accuracy.py [--json FILE]`; three trainings take their time.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from _figures import report, show_figures

from search.export import binary_accuracy
from search.job import JobSettings, load_job, parse_job
from search.loop import run_job
from search.session import JobSession
from search.stored_job import device_results, job_devices
from search.workspace import Workspace, open_workspace

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "digits.yaml"
SPLIT_SEEDS = (211, 212, 213)
TARGETS = {"report_accuracy_mean": [">=", 98.3]}


def settings_for(split_seed: int) -> JobSettings:
    """The example job on other splits of the data."""
    content = load_job(EXAMPLE).model_dump(mode="json")
    content["name"] = f"digits-split-{split_seed}"
    content["data"] |= {"seed": split_seed}
    return parse_job(content)


def best_of(workspace: Workspace, split_seed: int) -> tuple[str, str, float, float]:
    """Device, config key, selection and report accuracy in % of the job's best subnet."""
    settings = settings_for(split_seed)
    job_id = run_job(settings, workspace.store, workspace.artifacts, workspace.home, report)
    job = workspace.store.jobs.job(job_id)
    fronts = [(name, device_results(workspace.store, job, name)) for name in job_devices(job)]
    device, best = max(
        ((name, member) for name, results in fronts for member in results.front),
        key=lambda found: found[1].accuracy,
    )
    session = JobSession(workspace.store, workspace.artifacts, job, workspace.home, report)
    with session:
        build = session.verifier.build(device, [best.config], "best")[best.config.key]
        reported = binary_accuracy(session, device, build, session.data)
    return device, best.config.key, 100 * best.accuracy, 100 * reported


def main() -> None:
    """Print a table; with --json write figures and targets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--home", type=Path, default=Path("netcarve-home"))
    arguments = parser.parse_args()
    with open_workspace(arguments.home) as workspace:
        rows = [(seed, *best_of(workspace, seed)) for seed in SPLIT_SEEDS]
    print("\nsplit seed  device      config            selection %  report %")
    for seed, device, key, selected, reported in rows:
        print(f"{seed:10d}  {device:10}  {key:16}  {selected:11.2f}  {reported:8.2f}")
    figures = {"report_accuracy_mean": statistics.mean(row[-1] for row in rows)}
    show_figures(figures, TARGETS, arguments.json)


if __name__ == "__main__":
    main()

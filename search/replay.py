"""Replay: a job whose questions are answered with what an earlier job found.

Nothing is trained, built or measured. Since the search decides from stored results alone, the
same settings lead to the same trials; other search settings get as far as the earlier job's
verified subnets go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search.errors import SearchError, VerificationError
from search.models import JobRow, Purpose
from search.progress import Progress
from search.store import Store
from spaces import Config

REPLAY = "replay"
# What two jobs must share for one to answer for the other.
_SHARED = ("space", "supernet_key", "device_spaces", "capabilities")


def replayed(job: JobRow) -> str | None:
    """The job that answers for `job`, if it is a replay."""
    found = job.spec.get(REPLAY)
    return None if found is None else str(found)


def check_replay(source: JobRow, spec: Mapping[str, Any]) -> str:
    """The id of the job that really verified what `source` holds.

    Args:
        source: The job to replay.
        spec: The replaying job as it would be stored.

    Raises:
        SearchError: Space, supernet, data or devices of the two differ.
    """
    differing = [name for name in _SHARED if source.spec[name] != spec[name]]
    if differing:
        raise SearchError(
            f"job {source.id} cannot be replayed for these settings: its {', '.join(differing)} "
            f"differ; these must be equal: {', '.join(_SHARED)}"
        )
    return replayed(source) or source.id


@dataclass(frozen=True)
class Replay:
    """Stands in for the `Verifier` of a job.

    Attributes:
        job_id: The replaying job.
        source: The job whose results answer.
        store: Holds both.
        progress: Told about every answer.
        check: Called before anything is stored; raises when this process has lost the job.
    """

    job_id: str
    source: str
    store: Store
    progress: Progress
    check: Callable[[], None]

    def evaluate(self, configs: Sequence[Config], label: str) -> None:
        """Copy the evaluation of every config that has none yet.

        Raises:
            VerificationError: The source never tried to evaluate one of them.
        """
        results = self.store.results
        known = {row.config_key for row in results.evaluations(self.job_id)}
        rows = {row.config_key: row for row in results.evaluations(self.source)}
        wanted = [c for c in dict.fromkeys(configs) if c.key not in known]
        for done, config in enumerate(wanted):
            self.progress(f"{label}: accuracy, replayed", done, len(wanted))
            self.check()
            row = rows.get(config.key)
            if row is None:
                self._copy_failure(config)
                continue
            results.record_evaluation(
                self.job_id,
                config.key,
                config.to_json(),
                accuracy=row.accuracy,
                loss=float("nan") if row.loss is None else row.loss,
                count=row.count,
                split=row.split,
                costs=row.costs,
                seconds=row.seconds,
                artifact=row.artifact,
            )

    def measure(
        self,
        device: str,
        configs: Sequence[Config],
        purpose: Purpose,
        label: str,
        extra: Mapping[str, Mapping[str, Any]],
        together: Sequence[Sequence[Config]] = (),
    ) -> None:
        """Copy the measurement of every evaluated config that has none for this purpose yet.

        See `Verifier.measure`; `together` was decided when the source measured.

        Raises:
            VerificationError: The source never tried to measure one of them.
        """
        results = self.store.results

        def measured(job: str) -> dict[str, Mapping[str, Any]]:
            rows = results.measurements(job, device=device, purpose=purpose)
            return {row.config_key: row.measurement for row in rows}

        known, found = measured(self.job_id), measured(self.source)
        evaluated = {row.config_key for row in results.evaluations(self.job_id)}
        wanted = [c for c in dict.fromkeys(configs) if c.key in evaluated and c.key not in known]
        for done, config in enumerate(wanted):
            self.progress(f"{label}: measure on {device}, replayed", done, len(wanted))
            self.check()
            if config.key not in found:
                self._copy_failure(config)
                continue
            results.record_measurement(
                self.job_id,
                config.key,
                config.to_json(),
                device,
                purpose,
                found[config.key],
                extra.get(config.key, {}),
            )

    def _copy_failure(self, config: Config) -> None:
        for event in self.store.jobs.events(self.source, "failure"):
            if event.data.get("config_key") == config.key:
                self.store.jobs.record_event(
                    self.job_id, "failure", event.phase, data=dict(event.data)
                )
                return
        raise VerificationError(
            f"job {self.source} never verified config {config.key}, which this search asks for; "
            "run the job without --replay"
        )

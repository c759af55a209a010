"""What the fine-tuning of a job's subnets has given: one record for each config, in the store."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from search.store import Store

_NAME = "finetuned"


@dataclass(frozen=True)
class Finetuned:
    """A config's subnet after its fine-tuning.

    Attributes:
        accuracy: Top-1 accuracy on the selection split, 0 to 1.
        loss: Mean cross-entropy there, nats; None when it is not finite.
        seconds: Wall time of training and evaluation.
        artifact: Reference of the extracted subnet.
    """

    accuracy: float
    loss: float | None
    seconds: float
    artifact: str


def finetuned(store: Store, job_id: str) -> dict[str, Finetuned]:
    """Config key -> what its fine-tuning has given, for every config that is done."""
    stored = store.jobs.checkpoint(job_id, _NAME) or {}
    return {key: Finetuned(**values) for key, values in stored.items()}


def record_finetuned(
    store: Store,
    job_id: str,
    config_key: str,
    *,
    accuracy: float,
    loss: float,
    seconds: float,
    artifact: str,
) -> None:
    """Store one; only the process that holds the job's lease may."""
    known = {key: asdict(one) for key, one in finetuned(store, job_id).items()}
    found = Finetuned(accuracy, loss if math.isfinite(loss) else None, seconds, artifact)
    store.jobs.save_checkpoint(job_id, _NAME, known | {config_key: asdict(found)})

"""Fine-tuning of chosen subnets: each is trained on alone, evaluated, built and measured anew."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar

from search.finetuned import finetuned, record_finetuned
from search.tasks import EvaluationResult, EvaluationTask, FinetuneTask, finetune_subnet
from search.verification import SPLIT, Verifier
from spaces import Config


class Finetuner(Verifier):
    """Verifies subnets after their fine-tuning.

    `evaluate` trains a subnet on and evaluates it, `build` and `measure` are for what that gave.
    What the search has found about the same config stays beside it.
    """

    action: ClassVar[str] = "fine-tune"

    @classmethod
    def beside(cls, verifier: Verifier) -> Finetuner:
        """For the job of a verifier, in a folder of its own."""
        own = {f.name: getattr(verifier, f.name) for f in fields(verifier)}
        return cls(**(own | {"folder": verifier.folder / "finetuned"}))

    def evaluate(self, configs: Sequence[Config], label: str) -> None:
        """See `Verifier.evaluate`; a training that was interrupted goes on from its last epoch."""
        super().evaluate(configs, label)
        # Also what a process that was killed after its last record has left.
        shutil.rmtree(self._checkpoints, ignore_errors=True)

    def checkpoint_folder(self, config: Config) -> Path:
        """Where the checkpoints of a config lie until its result is recorded."""
        return self._checkpoints / config.key

    @property
    def _checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def evaluated(self) -> dict[str, str | None]:
        return {key: one.artifact for key, one in finetuned(self.store, self.job_id).items()}

    def _work(self) -> Callable[[Any], EvaluationResult]:
        return finetune_subnet

    def _evaluation_task(self, config: Config) -> FinetuneTask:
        return FinetuneTask(
            supernet=str(self.supernet),
            data=self.settings.data.model_dump_json(),
            config=config.to_json(),
            subnet=str(self.subnet_folder(config)),
            split=SPLIT,
            settings=self.settings.finetune.model_dump_json(),
            augmentation=self.settings.supernet.augmentation.model_dump_json(),
            checkpoints=str(self.checkpoint_folder(config)),
        )

    def _record(self, config: Config, task: EvaluationTask, found: EvaluationResult) -> None:
        record_finetuned(
            self.store,
            self.job_id,
            config.key,
            accuracy=found.accuracy,
            loss=found.loss,
            seconds=found.seconds,
            artifact=self.artifacts.put_folder(self.subnet_folder(config)),
        )
        shutil.rmtree(self.checkpoint_folder(config), ignore_errors=True)

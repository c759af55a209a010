"""One update a step, with the gradients of all its configs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from supernet.samplers.draw import Draw
from supernet.schedule import Rates
from supernet.updates.base import UPDATES, UpdateConfig, UpdateRule
from supernet.updates.optimizers import load_optimizer, make_optimizer, optimizer_tensors


class AccumulateConfig(UpdateConfig):
    """Settings of `accumulate`.

    Attributes:
        reduction: Of the losses of a step's configs: `sum` (Yu and Huang 2019) or `mean`
            (SortedNet, Valipour et al. 2023).
    """

    name: Literal["accumulate"] = "accumulate"
    reduction: Literal["sum", "mean"] = "sum"


@UPDATES.register("accumulate")
class AccumulateUpdate(UpdateRule):
    """Gradients of all configs are added up; weights and scales take one step."""

    settings_type = AccumulateConfig
    config: AccumulateConfig

    def reset(self) -> None:
        groups = [*self.weight_groups(), {"params": self.supernet.quantizer_parameters()}]
        self.optimizer = make_optimizer(self.config.optimizer, groups)

    def share(self, count: int) -> float:
        return 1 / count if self.config.reduction == "mean" else 1.0

    def begin(self, rates: Rates) -> None:
        *weights, quantizers = self.optimizer.param_groups
        for group in weights:
            group["lr"] = rates.weights
        quantizers["lr"] = rates.quantizers
        self.optimizer.zero_grad(set_to_none=True)

    def after_backward(self, draw: Draw) -> None:
        """Nothing to do yet."""

    def finish(self) -> None:
        self.world.mean_gradients(self.supernet.parameters())
        self.clip()
        self.optimizer.step()

    def tensors(self) -> dict[str, Tensor]:
        return optimizer_tensors(self.optimizer)

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        self.reset()
        load_optimizer(self.optimizer, tensors)

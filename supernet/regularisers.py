"""Regularisers of the float weights, found by name in `REGULARIZERS`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from spaces.registry import Registry
from supernet.elastic.conv import ElasticConv2d
from supernet.elastic.linear import ElasticLinear
from supernet.plugin import PluginConfig
from supernet.supernet import Supernet

_UNIFORM_KURTOSIS = 1.8


class RegularizerConfig(PluginConfig):
    """Base of the settings of a regulariser.

    Attributes:
        warmup: Also regularise during the warm-up.
    """

    warmup: bool = False


class Regularizer(ABC):
    """A loss of the weights alone, added once a step, whatever configs it trains.

    Args:
        config: Its settings.
    """

    settings_type: ClassVar[type[RegularizerConfig]]

    def __init__(self, config: RegularizerConfig) -> None:
        self.config = config

    @abstractmethod
    def loss(self, supernet: Supernet) -> Tensor:
        """Scalar; its gradient reaches the float weights of the store."""


REGULARIZERS: Registry[type[Regularizer]] = Registry("regularizer", "netcarve.regularizers")


class KurtosisSkewConfig(RegularizerConfig):
    """Settings of `kurtosis_skew`.

    Attributes:
        kurtosis: Weight of the squared distance of the kurtosis from a uniform distribution's, 1.8.
        skewness: Weight of the squared skewness.
    """

    name: Literal["kurtosis_skew"] = "kurtosis_skew"
    kurtosis: Annotated[float, Field(ge=0)] = 0.015
    skewness: Annotated[float, Field(ge=0)] = 1.0


def moments(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(skewness, kurtosis) of all elements of a tensor of any shape; scalars."""
    centred = weight - weight.mean()
    # Clamped before the root, whose gradient at zero is infinite: weights may begin as zeros.
    standard = centred / centred.square().mean().clamp(min=1e-24).sqrt()
    return standard.pow(3).mean(), standard.pow(4).mean()


def regularised_weights(supernet: Supernet) -> list[Tensor]:
    """The whole float weight of every convolution and linear layer but the first."""
    found = [
        module.weight
        for layer in supernet.layers().values()
        for module in layer.modules()
        if isinstance(module, ElasticConv2d | ElasticLinear)
    ]
    return list(found[1:])


@REGULARIZERS.register("kurtosis_skew")
class KurtosisSkew(Regularizer):
    """Pulls weights towards a symmetric, uniform distribution, which quantises best at few bits
    (EQ-Net, Xu et al. 2023): the mean over the layers of the weighted squares."""

    settings_type = KurtosisSkewConfig
    config: KurtosisSkewConfig

    def loss(self, supernet: Supernet) -> Tensor:
        terms = []
        for weight in regularised_weights(supernet):
            skewness, kurtosis = moments(weight)
            terms.append(
                self.config.skewness * skewness.square()
                + self.config.kurtosis * (kurtosis - _UNIFORM_KURTOSIS).square()
            )
        return torch.stack(terms).mean()

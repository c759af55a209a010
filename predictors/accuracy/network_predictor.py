"""What predictors of accuracy that are networks have in common."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from numpy.typing import NDArray

from predictors.accuracy.base import AccuracyPredictor
from predictors.accuracy.encoding import Part
from predictors.accuracy.inputs import NetworkInputs
from predictors.accuracy.settings import NetworkSettings
from predictors.base import FloatArray, Prediction
from predictors.errors import PredictorFileError
from predictors.predictor_file import read_predictor, write_predictor
from spaces.population import hashes
from spaces.space import Population, SearchSpace

if TYPE_CHECKING:
    import torch

    from predictors.accuracy.ensemble import Ensemble, Rows
    from predictors.accuracy.network import Parameters

FITTED = "fitted"


class NetworkAccuracyPredictor(AccuracyPredictor):
    """An ensemble of perceptrons, which can be stored.

    Implementations set `name`, `parts` and `added`, and in `_fit` the ensemble `FITTED`.

    Args:
        space: The space whose populations it reads.
        settings: Of the network and its training; default: `defaults`.

    Attributes:
        defaults: Settings that suit it.
        parts: What the first layer reads.
        added: What is added behind the first layer, see `network.forward`.
    """

    min_samples = 8
    defaults: ClassVar[NetworkSettings] = NetworkSettings()
    parts: ClassVar[tuple[Part, ...]]
    added: ClassVar[tuple[Part, ...]] = ()

    def __init__(self, space: SearchSpace, settings: NetworkSettings | None = None) -> None:
        super().__init__(space)
        self.settings = settings or self.defaults
        self._inputs = NetworkInputs(space, self.parts)
        self._added = NetworkInputs(space, self.added)
        self._ensembles: dict[str, Ensemble] = {}

    def _predict(self, population: Population) -> Prediction:
        return self._ensembles[FITTED].predict(self._rows(population))

    def _rows(self, population: Population) -> Rows:
        from predictors.accuracy.ensemble import Rows

        return Rows.of(self._inputs(population), self._added(population))

    def _fresh(self) -> Parameters:
        """Random networks."""
        from predictors.accuracy.network import init_network

        return init_network(
            len(self._inputs.columns),
            self._inputs.blocks,
            self.settings.hidden,
            self.settings.members,
            self._generator(),
        )

    def _trained(self, start: Parameters, population: Population, target: FloatArray) -> Ensemble:
        """Networks trained on samples."""
        from predictors.accuracy.training import train

        subnets, rows = hashes(self.space, population), self._rows(population)
        return train(start, rows, subnets, target, self.settings, self._generator())

    def _generator(self) -> torch.Generator:
        import torch

        return torch.Generator().manual_seed(self.settings.seed)

    def save(self, file: str | Path) -> None:
        """Write what was learnt as safetensors with metadata in JSON; nothing is pickled.

        A file that is there is replaced whole.

        Raises:
            OSError: The file cannot be written.
        """
        described = {
            "space": self.space.key,
            "settings": asdict(self.settings),
            "ensembles": {name: found.settings() for name, found in self._ensembles.items()},
        }
        arrays: dict[str, NDArray[Any]] = {}
        for name, ensemble in self._ensembles.items():
            arrays |= ensemble.arrays(name)
        write_predictor(file, self.name, described, arrays)

    @classmethod
    def load(cls, file: str | Path, space: SearchSpace) -> Self:
        """The predictor that `save` wrote.

        Args:
            file: Where.
            space: The space that it was made for.

        Raises:
            PredictorFileError: The file cannot be read, is damaged, or holds another predictor or
                one of another space.
        """
        from predictors.accuracy.ensemble import Ensemble

        described, arrays = read_predictor(file, cls.name)
        try:
            if described["space"] != space.key:
                raise PredictorFileError(
                    f"{str(file)!r} predicts subnets of the space with key {described['space']}, "
                    f"expected {space.key} ({space.name})"
                )
            settings = dict(described["settings"])
            settings["hidden"] = tuple(settings["hidden"])
            predictor = cls(space, NetworkSettings(**settings))
            for name, found in described["ensembles"].items():
                ensemble = Ensemble.restore(name, found, arrays)
                read, given = ensemble.inputs, len(predictor._inputs.columns)
                if read != given:
                    raise ValueError(f"its networks have {read} inputs, a config {given}")
                predictor._ensembles[name] = ensemble
        except (KeyError, TypeError, ValueError) as error:
            raise PredictorFileError(f"{str(file)!r} is damaged: {error!r}") from None
        predictor._fitted = FITTED in predictor._ensembles
        return predictor

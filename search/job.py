"""The job file: one YAML, validated, that says what to search, for which devices, on what budget.

Each folder owns the model of its section; this one composes them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    model_validator,
)

from compilers.devices import DeviceConfig, parse_device
from predictors import ACCURACY_PREDICTORS, LATENCY_PREDICTORS
from search.errors import JobConfigError, ObjectiveError
from search.execution import ExecutionConfig
from search.objectives import Constraint, Objective, check_constraints
from spaces import Choice, NetcarveError, SearchSpace, SpaceError, UnknownNameError, get_space
from spaces.inline import InlineSpace, parse_inline_space
from spaces.registry import Registry
from spaces.settings import explain
from supernet import DataConfig, FinetuneConfig, SupernetConfig

Count = Annotated[int, Field(gt=0)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _known(registry: Registry[Any]) -> Callable[[str], str]:
    """A validator that accepts the names of a registry."""

    def check(name: str) -> str:
        if name not in registry.names():
            raise ValueError(str(UnknownNameError(registry.kind, name, registry.names())))
        return name

    return check


def _described(device: Any) -> Any:
    """The settings of a device that is described in place, as its kind defines them."""
    if not isinstance(device, Mapping):
        return device
    try:
        return parse_device(device)
    except NetcarveError as error:
        raise ValueError(str(error)) from None


JobDevice = Annotated[SerializeAsAny[DeviceConfig] | str, BeforeValidator(_described)]
"""A device of a job: the name of a registered one, or its settings."""


def _inline(space: Any) -> Any:
    """A space that is described in place, as its family defines it."""
    if not isinstance(space, Mapping):
        return space
    try:
        return parse_inline_space(space)
    except NetcarveError as error:
        raise ValueError(str(error)) from None


JobSpace = Annotated[InlineSpace | str, BeforeValidator(_inline)]
"""The space of a job: its name, or a family and its settings."""


class Strategy(StrEnum):
    """Where candidates come from: evolution on predictors, or (as a baseline) chance."""

    EVOLUTION = "evolution"
    RANDOM = "random"


class SearchSettings(_Section):
    """The budget of the search, per device.

    Attributes:
        strategy: Where candidates come from.
        latency_predictor: Name of the predictor that adapts to a device.
        accuracy_predictor: Name of the predictor that learns from verified accuracies.
        reference_configs: Configs measured first, from which the latency predictor adapts.
        generations: Rounds of verified evaluations after them.
        batch: Configs verified per round.
        population: Size of the inner evolution's population.
        inner_generations: Generations of the inner evolution, on predictions only, per round.
        precision_twins: Members of the front that are also verified with every layer in float32
            and with every layer in 8 bits.
    """

    strategy: Strategy = Strategy.EVOLUTION
    latency_predictor: Annotated[str, AfterValidator(_known(LATENCY_PREDICTORS))] = "adaptive"
    accuracy_predictor: Annotated[str, AfterValidator(_known(ACCURACY_PREDICTORS))] = (
        "gaussian_process"
    )
    reference_configs: Annotated[int, Field(ge=5)] = 10
    generations: Annotated[int, Field(ge=0)] = 6
    batch: Count = 6
    population: Annotated[int, Field(ge=8)] = 256
    inner_generations: Count = 60
    precision_twins: Annotated[int, Field(ge=0)] = 3


class Resources(ExecutionConfig):
    """What a job may use; where its tasks run is `ExecutionConfig`'s part.

    Attributes:
        retries: How often an evaluation whose worker died is run again, and a training goes on
            from its last checkpoint after one of its workers died.
        training_threads: Threads of each training worker. On small images more threads lose in
            synchronisation what they gain, and much more on a machine that others use too.
        training_workers: Processes that share every batch of the training; their weights are those
            of one process up to rounding. On several hosts the home folder must lie where all of
            them see it.
        training_device: `cpu`, or `cuda`: every worker has a GPU of its own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    retries: Annotated[int, Field(ge=0)] = 2
    training_threads: Count = 1
    training_workers: Count = 1
    training_device: Literal["cpu", "cuda"] = "cpu"


class ExportSettings(_Section):
    """What a finished job leaves.

    Attributes:
        bundles: At most so many members of each device's front become bundles.
        archive: Also write each bundle as a `.tar.gz`.
    """

    bundles: Count = 8
    archive: bool = True


class JobSettings(_Section):
    """A whole job. See `examples/digits.yaml`.

    Attributes:
        name: Short name; the job's id is this and a few random letters.
        space: The search space that the supernet spans: its name, or described in place.
        choices: Restriction for all devices: dimension or pattern -> values to keep.
        seed: Seed of the search; training and the data split have their own.
        data: The data set and its three splits.
        supernet: How the supernet is trained.
        finetune: How the subnets on the fronts are trained on, after the search.
        devices: Devices, by the name under which they are registered or described in place.
        objectives: What is optimised, each with its unit.
        constraints: Bounds that a subnet must meet.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]
    space: JobSpace
    choices: dict[str, Annotated[tuple[Choice, ...], Field(min_length=1)]] = {}
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    data: DataConfig
    supernet: SupernetConfig
    finetune: FinetuneConfig = FinetuneConfig()
    devices: Annotated[tuple[JobDevice, ...], Field(min_length=1)]
    objectives: Annotated[tuple[Objective, ...], Field(min_length=1)]
    constraints: tuple[Constraint, ...] = ()
    search: SearchSettings = SearchSettings()
    resources: Resources = Resources()
    export: ExportSettings = ExportSettings()

    @model_validator(mode="after")
    def _consistent(self) -> JobSettings:
        names = [d if isinstance(d, str) else d.name for d in self.devices]
        for what, values in (("device", names), ("objective", [o.name for o in self.objectives])):
            repeated = sorted({v for v in values if values.count(v) > 1})
            if repeated:
                raise ValueError(f"{what} {repeated[0]!r} is listed twice")
        workers, images = self.resources.training_workers, self.supernet.batch_size
        if workers > images:
            raise ValueError(
                f"training_workers {workers} is more than batch_size {images}; every worker needs "
                "an image of each batch"
            )
        try:
            check_constraints(self.constraints)
        except ObjectiveError as error:
            raise ValueError(str(error)) from None
        return self

    def search_space(self) -> SearchSpace:
        """The space that the supernet spans, before any device restricts it.

        Raises:
            UnknownNameError: Unknown space or dimension.
            SpaceError: A value that the space does not have, or it is not of the family that the
                supernet must have.
        """
        space = get_space(self.space) if isinstance(self.space, str) else self.space.space()
        wanted = self.supernet.family
        if wanted not in (None, space.family.name):
            raise SpaceError(
                f"supernet.family is {wanted!r}, but space {space.name} is of the family "
                f"{space.family.name!r}"
            )
        return space.restrict(choices=self.choices)

    def decisive(self) -> dict[str, Any]:
        """Everything that decides the result, as JSON; a job may be continued with other
        resources, and its data and its teacher may be moved: their content counts, which the
        supernet's key holds."""
        found = self.model_dump(mode="json", exclude={"resources"})
        return found | {
            section: found[section] | dict.fromkeys(paths)
            for section, paths in self.places().items()
        }

    def places(self) -> dict[str, dict[str, str | None]]:
        """Where data and teacher lie: section -> key -> path."""
        places = {"data": {"path": self.data.path}, "supernet": {"teacher": self.supernet.teacher}}
        return {
            section: {key: None if path is None else str(path) for key, path in paths.items()}
            for section, paths in places.items()
        }


def parse_job(data: Any) -> JobSettings:
    """Validate the content of a job file.

    Raises:
        JobConfigError: Not a mapping, an unknown key, or a value that is not allowed.
    """
    if not isinstance(data, dict):
        raise JobConfigError("a job file must be a YAML mapping with keys such as 'name', 'space'")
    try:
        return JobSettings.model_validate(data)
    except ValidationError as error:
        raise JobConfigError(f"job file: {explain(error, JobSettings)}") from None


def load_job(path: str | Path) -> JobSettings:
    """Read and validate a job file.

    Raises:
        JobConfigError: The file cannot be read, is not YAML, or is refused by `parse_job`.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise JobConfigError(f"cannot read job file {str(path)!r}: {error}") from None
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise JobConfigError(f"job file {str(path)!r} is not valid YAML: {error}") from None
    return parse_job(data)

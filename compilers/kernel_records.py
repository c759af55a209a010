"""What the kernel library knows about a kernel, as JSON: its register tile and its latency.

A record describes a kernel by its template's name and fields. Whatever is read is checked against
the template's types and rules; nothing in a record is ever executed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from functools import cache
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from compilers import kernels as _templates
from compilers.errors import KernelError, KernelRecordError
from compilers.kernels.base import Kernel
from compilers.kernels.tiling import Tile
from compilers.targets import ISAS, Isa
from spaces.settings import explain

assert _templates, "imported for its templates"

_LARGEST_SIDE = 1024


@cache
def templates() -> dict[str, type[Kernel]]:
    """Template name -> class, of every kernel template."""
    found, waiting = {}, list(Kernel.__subclasses__())
    while waiting:
        template = waiting.pop()
        waiting += template.__subclasses__()
        if "kind" in vars(template):
            found[template.kind] = template
    return dict(sorted(found.items()))


def describe(kernel: Kernel) -> dict[str, Any]:
    """A JSON object that `parse_kernel` turns back into an equal kernel."""
    return {"template": kernel.kind, **asdict(kernel)}  # type: ignore[call-overload]


def label(kernel: Kernel) -> str:
    """A kernel on one line for people; what it does not do is left out."""
    described = describe(kernel)
    template = described.pop("template")
    return " ".join([template, *(f"{k}={v}" for k, v in described.items() if v is not None)])


def parse_kernel(data: object) -> Kernel:
    """The kernel that `describe` described; fields that are left out have their default.

    Raises:
        KernelError: Not an object, or an unknown template or field, or a value that the template
            does not take.
    """
    if not isinstance(data, Mapping):
        raise KernelError(f"a kernel must be an object, got {data!r:.60}")
    known = templates()
    name = data.get("template")
    if not isinstance(name, str) or name not in known:
        raise KernelError(f"unknown template {name!r:.60}; known: {', '.join(known)}")
    given = {key: value for key, value in data.items() if key != "template"}
    allowed = [field.name for field in fields(known[name])]  # type: ignore[arg-type]
    if unknown := sorted(map(str, given.keys() - set(allowed))):
        raise KernelError(
            f"template {name!r} has no field {unknown[0]!r:.60}; it has: {', '.join(allowed)}"
        )
    try:
        # As JSON: strict about types, but a string may name a member of an enumeration.
        kernel: Kernel = _adapter(known[name]).validate_json(json.dumps(given), strict=True)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"])) or "kernel"
        raise KernelError(f"{where} of template {name!r}: {problem['msg']}") from None
    return kernel


@cache
def _adapter(template: type[Kernel]) -> TypeAdapter[Any]:
    return TypeAdapter(template)


def _kernel(value: object) -> Kernel:
    if isinstance(value, Kernel):
        return value
    try:
        return parse_kernel(value)
    except KernelError as error:
        raise ValueError(str(error)) from None


KernelField = Annotated[Any, BeforeValidator(_kernel), PlainSerializer(describe)]
Side = Annotated[int, Field(strict=True, ge=1, le=_LARGEST_SIDE)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def parse(cls, line: str | bytes) -> Self:
        """The record in one line of JSON.

        Raises:
            KernelRecordError: Not JSON, or not such a record.
        """
        try:
            data = json.loads(line)
            if not isinstance(data, dict):
                raise KernelRecordError(f"not a JSON object: {line[:60]!r}")
            return cls.model_validate(data)
        except ValidationError as error:
            raise KernelRecordError(explain(error, cls)[:500]) from None
        except (ValueError, RecursionError) as error:
            raise KernelRecordError(f"not JSON: {error}") from None

    def line(self) -> bytes:
        """The record as one line of JSON."""
        return self.model_dump_json().encode() + b"\n"


class TileField(BaseModel):
    """A register tile, see `compilers.kernels.tiling.Tile`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: Side
    vectors: Side = 1
    columns: Side = 1

    @classmethod
    def of(cls, tile: Tile | None) -> Self | None:
        """The field for a tile."""
        return None if tile is None else cls(**asdict(tile))

    @property
    def tile(self) -> Tile:
        """The tile."""
        return Tile(self.rows, self.vectors, self.columns)


class FailedTile(BaseModel):
    """A candidate that could not be compiled, run or trusted.

    Attributes:
        tile: The candidate; None is the only one of a template without a choice.
        error: What happened.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    tile: TileField | None
    error: Annotated[str, Field(max_length=300)]


class KernelChoice(_Record):
    """The register tile that a kernel is compiled with on an instruction set.

    Attributes:
        kernel: Template, shape and epilogue.
        isa: Name of the instruction set.
        threads: Threads of the kernel.
        tile: The fastest candidate; None where the template leaves no choice or all failed.
        failed: Candidates that were lost.
    """

    kernel: KernelField
    isa: str
    threads: Annotated[int, Field(strict=True, ge=1)] = 1
    tile: TileField | None = None
    failed: tuple[FailedTile, ...] = ()

    @model_validator(mode="after")
    def _known_isa(self) -> Self:
        if self.isa not in ISAS:
            raise ValueError(f"unknown isa {self.isa!r}; known: {', '.join(ISAS)}")
        return self

    @property
    def key(self) -> ChoiceKey:
        """What the choice is for."""
        return self.kernel, self.isa, self.threads


ChoiceKey = tuple[Kernel, str, int]


def choice_key(kernel: Kernel, isa: Isa) -> ChoiceKey:
    """The key of a kernel's choice."""
    return kernel, isa.name, isa.threads


class KernelTiming(_Record):
    """Latency of one kernel on one device, called again and again with warm caches.

    Attributes:
        device: What was measured: the device's settings and `hardware`.
        kernel: Template, shape and epilogue.
        threads: Threads of the kernel.
        tile: The register tile that was measured; None is the template's rule.
        generator: Version of the templates, `kernel_library.generator_key`.
        median_us: Median of the samples, microseconds per call.
        p10_us: 10th percentile, microseconds.
        p90_us: 90th percentile, microseconds.
        repeats: Samples taken.
        call_us: What the runtime adds to each call of a kernel on that device, microseconds.
        clock: What was read.
    """

    device: dict[str, Any]
    kernel: KernelField
    threads: Annotated[int, Field(strict=True, ge=1)] = 1
    tile: TileField | None = None
    generator: str
    median_us: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    p10_us: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    p90_us: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    repeats: Annotated[int, Field(ge=1)]
    call_us: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    clock: Literal["std::chrono"] = "std::chrono"

    @property
    def latency_us(self) -> float:
        """What one call within a network takes, microseconds."""
        return self.median_us + self.call_us

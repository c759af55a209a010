"""Configs as latency predictors see them: categorical codes and additive amounts.

A predictor does not ask where configs come from: those of a `SearchSpace` (`encoding.py`) and the
rows of an imported table (`tables.py`) look alike.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from predictors.errors import TableError

FloatArray = NDArray[np.float64]
Codes = NDArray[np.int16]
Rows = NDArray[np.int64] | NDArray[np.bool_]
Value = int | str

ABSENT = -1
"""The code of a choice that a config does not have, such as the kernel of a skipped block."""


@dataclass(frozen=True)
class Column:
    """One categorical choice of a config.

    Attributes:
        name: Unique in its schema.
        choices: What its codes 0, 1, ... stand for; distinct.
        group: Columns of one group share an alphabet: equal choices mean the same in all of them,
            so that counting them over the group makes sense.
    """

    name: str
    choices: tuple[Value, ...]
    group: str


@dataclass(frozen=True)
class Amount:
    """A quantity of a config to which latency is close to additive, such as MACs or bytes.

    Attributes:
        name: Unique in its schema.
        nominal_ms: Rough time of one unit in ms: only brings amounts of different units to one
            scale.
        labels: Amounts with an equal label in one place have related rates, such as those of one
            operator.
    """

    name: str
    nominal_ms: float
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class ConfigSchema:
    """What the columns and amounts of some configs mean.

    Attributes:
        columns: The categorical choices.
        amounts: The quantities; there may be none.

    Raises:
        TableError: No column, a repeated name or choice, or a nominal time that is not above 0.
    """

    columns: tuple[Column, ...]
    amounts: tuple[Amount, ...] = ()

    def __post_init__(self) -> None:
        names = [column.name for column in self.columns] + [a.name for a in self.amounts]
        repeated = {name for name in names if names.count(name) > 1}
        if not self.columns or repeated:
            what = f"repeats {sorted(repeated)}" if repeated else "has no column"
            raise TableError(f"the schema of a latency table {what}")
        for column in self.columns:
            if not column.choices or len(set(column.choices)) != len(column.choices):
                raise TableError(
                    f"choices of column {column.name!r} must be distinct and at least one, "
                    f"got {column.choices}"
                )
        for amount in self.amounts:
            if not amount.nominal_ms > 0:
                raise TableError(
                    f"amount {amount.name!r}: nominal_ms is {amount.nominal_ms}, must be above 0"
                )

    @cached_property
    def key(self) -> str:
        """A stable key, hex: equal schemas have equal keys."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:32]

    @cached_property
    def nominal_ms(self) -> FloatArray:
        """Nominal times (f,) of the amounts."""
        return np.array([amount.nominal_ms for amount in self.amounts], dtype=np.float64)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready fields."""
        return {
            "columns": [
                {"name": c.name, "choices": list(c.choices), "group": c.group} for c in self.columns
            ],
            "amounts": [
                {"name": a.name, "nominal_ms": a.nominal_ms, "labels": list(a.labels)}
                for a in self.amounts
            ],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """What `to_json` described.

        Raises:
            TableError: It is not such an object.
        """
        try:
            columns = tuple(
                Column(str(c["name"]), tuple(c["choices"]), str(c["group"]))
                for c in data["columns"]
            )
            amounts = tuple(
                Amount(str(a["name"]), float(a["nominal_ms"]), tuple(map(str, a["labels"])))
                for a in data["amounts"]
            )
        except (KeyError, TypeError, ValueError) as error:
            raise TableError(f"not the schema of a latency table: {error!r}") from None
        return cls(columns, amounts)


@dataclass(frozen=True)
class Configs:
    """Some configs of one schema.

    Attributes:
        schema: What the columns mean.
        codes: int16 (n, c): positions in the columns' choices, `ABSENT` where there is none.
        amounts: float64 (n, f), finite and not negative.

    Raises:
        TableError: A shape, code or amount that the schema does not allow.
    """

    schema: ConfigSchema
    codes: Codes
    amounts: FloatArray

    def __post_init__(self) -> None:
        count = len(self.codes)
        shapes = (count, len(self.schema.columns)), (count, len(self.schema.amounts))
        if (self.codes.shape, self.amounts.shape) != shapes:
            raise TableError(
                f"codes {self.codes.shape} and amounts {self.amounts.shape} of {count} configs "
                f"must be {shapes[0]} and {shapes[1]}"
            )
        sizes = np.array([len(column.choices) for column in self.schema.columns])
        wrong = np.argwhere((self.codes < ABSENT) | (self.codes >= sizes))
        if wrong.size:
            row, column = wrong[0]
            raise TableError(
                f"config {row}: column {self.schema.columns[column].name!r} has code "
                f"{self.codes[row, column]}; it has {sizes[column]} choices"
            )
        wrong = np.argwhere(~(np.isfinite(self.amounts) & (self.amounts >= 0)))
        if wrong.size:
            row, column = wrong[0]
            raise TableError(
                f"config {row}: {self.schema.amounts[column].name} is "
                f"{self.amounts[row, column]}, must be finite and not negative"
            )

    def __len__(self) -> int:
        return len(self.codes)

    def take(self, rows: Rows) -> Configs:
        """Some of the configs."""
        return Configs(self.schema, self.codes[rows], self.amounts[rows])

    def distinct(self) -> NDArray[np.int64]:
        """Row numbers, ascending, of the first occurrence of each different config."""
        _, first = np.unique(self.codes, axis=0, return_index=True)
        return np.sort(first).astype(np.int64)

    @staticmethod
    def join(parts: Sequence[Configs]) -> Configs:
        """The configs of all parts, which share a schema; at least one part.

        Raises:
            TableError: The schemas differ.
        """
        schema = parts[0].schema
        for part in parts[1:]:
            check_schema(part.schema, schema)
        return Configs(
            schema,
            np.concatenate([part.codes for part in parts]),
            np.concatenate([part.amounts for part in parts]),
        )


def check_schema(found: ConfigSchema, expected: ConfigSchema) -> None:
    """Refuse configs of another schema, saying where it differs.

    Raises:
        TableError: They are of another space, or were described differently.
    """
    if found.key == expected.key:
        return
    names = [c.name for c in found.columns], [c.name for c in expected.columns]
    amounts = [a.name for a in found.amounts], [a.name for a in expected.amounts]
    if names[0] != names[1]:
        missing = sorted(set(names[1]) - set(names[0]))[:3]
        added = sorted(set(names[0]) - set(names[1]))[:3]
        what = f"columns missing: {missing}, not known: {added}"
    elif amounts[0] != amounts[1]:
        what = f"amounts {amounts[0][:4]} instead of {amounts[1][:4]}"
    else:
        differing = [a.name for a, b in zip(found.columns, expected.columns, strict=True) if a != b]
        what = f"other choices of {differing[:3]}" if differing else "other units"
    raise TableError(f"configs of another search space: {what}")

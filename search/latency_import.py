"""Latency tables in and out of the store as Parquet files, those of others included."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from predictors.errors import InvalidTargetError, TableError
from predictors.latency import Amount, Column, ConfigSchema
from search.latency_parquet import (
    is_numeric,
    is_ours,
    keyed,
    latency_column,
    numbers,
    parse_table,
    read_parquet,
    write_table,
)
from search.latency_tables import config_key, predictor_tables
from search.models import Source
from search.store import Store
from search.store_latencies import StoredTable, TableDevice
from spaces import UnknownNameError

if TYPE_CHECKING:
    import pyarrow as pa

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_MOST_CHOICES = 1000


@dataclass(frozen=True)
class Layout:
    """What the columns of a file are that netcarve did not write. Names may be patterns.

    Attributes:
        columns: The choices of a config: integers or strings, null where it does not have one.
        features: Quantities of a config to which latency is close to additive, such as MACs.
        devices: Latencies in ms; every other numeric column when empty.
        ignore: Columns that are left out.
        families: Device -> family; a device that is not listed is a family of its own.
    """

    columns: Sequence[str] = ()
    features: Sequence[str] = ()
    devices: Sequence[str] = ()
    ignore: Sequence[str] = ()
    families: Mapping[str, str] = field(default_factory=dict)

    @property
    def given(self) -> bool:
        """Whether anything is said."""
        return any((self.columns, self.features, self.devices, self.ignore, self.families))


def export_table(store: Store, name: str, file: Path) -> StoredTable:
    """Write a table of the store to a Parquet file.

    Raises:
        UnknownNameError: No such table.
        SearchError: The file cannot be written.
    """
    table = store.latencies.read(name)
    write_table(table, file)
    return table


def import_table(
    store: Store, file: Path, name: str | None = None, layout: Layout = Layout()
) -> StoredTable:
    """Store the table in a Parquet file, all of it or nothing.

    Args:
        store: The store.
        file: What `export_table` wrote, or anything else with a row for each config.
        name: Of the table; its own name, or that of the file, when None.
        layout: What the columns of a file of others are.

    Raises:
        SearchError: The file cannot be read.
        TableError: It is damaged, its columns are not what `layout` says, a config is there twice,
            or the name is not allowed.
        InvalidTargetError: A latency is NaN or not above 0, or all of a device are equal.
        UnknownNameError: A name of `layout` is no column.
        RecordConflictError: A table of that name exists.
    """
    data = read_parquet(file)
    if is_ours(data):
        if layout.given:
            raise TableError(
                f"{str(file)!r} was written by netcarve and says itself what its columns are"
            )
        table = parse_table(data, name)
    else:
        table = _foreign(data, name or file.stem, layout)
    if not _NAME.fullmatch(table.name):
        raise TableError(
            f"{table.name!r} is no name of a latency table; allowed: up to 64 letters, digits, "
            "'_', '.' and '-', the first a letter or digit"
        )
    store.latencies.add_table(table)
    return table


def _foreign(data: pa.Table, name: str, layout: Layout) -> StoredTable:
    names = data.column_names
    columns = _matching(layout.columns, names)
    features = _matching(layout.features, names)
    ignored = _matching(layout.ignore, names)
    if not columns:
        raise TableError(
            "the file was not written by netcarve: say which of its columns are the choices of a "
            f"config. It has: {', '.join(names)}"
        )
    taken = {*columns, *features, *ignored}
    rest = [n for n in names if n not in taken and is_numeric(data.schema.field(n).type)]
    devices = _matching(layout.devices, names) if layout.devices else rest
    _refuse_twice({"choice": columns, "feature": features, "device": devices, "ignored": ignored})
    if not devices:
        raise TableError("no numeric column is left that could be the latencies of a device")
    schema = ConfigSchema(
        tuple(_categories(data, column) for column in columns),
        tuple(_amount(data, feature) for feature in features),
    )
    values = {column: _choices(data, column) for column in columns}
    values |= {feature: numbers(data, feature).tolist() for feature in features}
    rows = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    families = _families(layout.families, devices)
    table = StoredTable(
        name=name,
        definition={"schema": schema.to_json()},
        space_key=None,
        devices=tuple(TableDevice(d, families.get(d, d), source=Source.IMPORTED) for d in devices),
        configs=keyed([config_key(schema, row) for row in rows], rows),
        latencies={device: latency_column(data, device) for device in devices},
        repeats={device: np.full(len(rows), np.nan) for device in devices},
    )
    empty = [device for device in devices if np.isnan(table.latencies[device]).all()]
    if empty:
        raise InvalidTargetError(f"column {empty[0]!r} holds no latency at all")
    predictor_tables(table)
    return table


def _matching(patterns: Iterable[str], names: Sequence[str]) -> list[str]:
    """The names that match, in their own order.

    Raises:
        UnknownNameError: A pattern matches none.
    """
    found: set[str] = set()
    for pattern in patterns:
        matching = fnmatch.filter(names, pattern)
        if not matching:
            raise UnknownNameError("column", pattern, names)
        found.update(matching)
    return [name for name in names if name in found]


def _refuse_twice(roles: Mapping[str, Collection[str]]) -> None:
    first: dict[str, str] = {}
    for role, names in roles.items():
        for name in names:
            if name in first:
                raise TableError(f"column {name!r} cannot be both {first[name]} and {role}")
            first[name] = role


def _families(patterns: Mapping[str, str], devices: Sequence[str]) -> dict[str, str]:
    found = {}
    for pattern, family in patterns.items():
        matching = fnmatch.filter(devices, pattern)
        if not matching:
            raise UnknownNameError("device", pattern, devices)
        found.update(dict.fromkeys(matching, family))
    return found


def _categories(data: pa.Table, name: str) -> Column:
    """A column of choices; those whose names differ only in a trailing number form a group."""
    choices = sorted({value for value in _choices(data, name) if value is not None})
    if len(choices) > _MOST_CHOICES:
        raise TableError(
            f"column {name!r} has {len(choices)} different values; allowed: {_MOST_CHOICES} for "
            "a choice. A quantity is a feature"
        )
    return Column(name, tuple(choices), re.sub(r"\d+$", "", name))


def _choices(data: pa.Table, name: str) -> list[Any]:
    """The values of a column of choices, all integers or all strings, None where it is null."""
    values = data.column(name).to_pylist()
    known = [value for value in values if value is not None]
    if all(isinstance(value, str) for value in known):
        return values
    if all(isinstance(v, int) or (isinstance(v, float) and v.is_integer()) for v in known):
        # An integer column with gaps comes from other tools as floating point.
        return [None if value is None else int(value) for value in values]
    raise TableError(
        f"column {name!r} holds {data.schema.field(name).type}; a choice is an integer or a string"
    )


def _amount(data: pa.Table, name: str) -> Amount:
    values = numbers(data, name)
    mean = float(values.mean()) if len(values) else 0.0
    if not (np.isfinite(mean) and mean > 0):
        raise TableError(
            f"feature {name!r} has the mean {mean}; it must be finite, not negative, and not 0 "
            "everywhere"
        )
    return Amount(name, 1.0 / mean)

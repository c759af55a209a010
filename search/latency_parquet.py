"""Latency tables as Parquet files: how they travel, and how those of others are read.

A file that netcarve wrote has a column for each dimension of its configs (null where a config does
not have that choice), a column for each amount, and for each device `latency_ms/DEVICE` and
`repeat_ms/DEVICE`, null where it was not measured. What they mean is JSON in the file's metadata.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from predictors.errors import InvalidTargetError, TableError
from predictors.latency import ConfigSchema
from search.errors import SearchError
from search.latency_tables import config_key, schema_configs, space_config, space_key
from search.models import Source
from search.store_latencies import StoredTable, TableDevice
from spaces import SearchSpace
from spaces.files import atomic_write_bytes

FORMAT = 1
METADATA = b"netcarve"
LATENCY, REPEAT = "latency_ms/", "repeat_ms/"

FloatArray = NDArray[np.float64]


def write_table(table: StoredTable, file: Path) -> None:
    """Write a table whole or not at all. Failed measurements do not travel.

    Raises:
        SearchError: The file cannot be written.
        TableError: A config does not belong to the table's space.
    """
    rows = _present(table)
    columns = {name: pa.array([row[name] for row in rows]) for name in _names(table.definition)}
    for prefix, values in ((LATENCY, table.latencies), (REPEAT, table.repeats)):
        for device in table.devices:
            columns[prefix + device.name] = pa.array(values[device.name], from_pandas=True)
    described = {
        "format": FORMAT,
        "name": table.name,
        "definition": dict(table.definition),
        "devices": [
            {"name": d.name, "family": d.family, "hardware": d.hardware} for d in table.devices
        ],
    }
    data = pa.table(columns).replace_schema_metadata({METADATA: json.dumps(described)})
    buffer = BytesIO()
    pq.write_table(data, buffer)
    try:
        atomic_write_bytes(file, buffer.getvalue())
    except OSError as error:
        raise SearchError(f"cannot write {str(file)!r}: {error.strerror}") from error


def read_parquet(file: Path) -> pa.Table:
    """The content of a Parquet file.

    Raises:
        SearchError: It cannot be read.
        TableError: It is damaged, no Parquet file, or two columns have one name.
    """
    try:
        data = pq.ParquetFile(BytesIO(file.read_bytes())).read()
    except OSError as error:
        if error.strerror is not None:
            raise SearchError(f"cannot read {str(file)!r}: {error.strerror}") from error
        raise _damaged(file, error) from error
    except (pa.ArrowException, ValueError) as error:
        raise _damaged(file, error) from error
    names = data.column_names
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise TableError(f"{str(file)!r}: two columns are called {repeated[0]!r}")
    return data


def is_ours(data: pa.Table) -> bool:
    """Whether `write_table` wrote it."""
    return METADATA in (data.schema.metadata or {})


def parse_table(data: pa.Table, name: str | None) -> StoredTable:
    """What `write_table` wrote.

    Args:
        data: The content of the file.
        name: Of the new table; the one that it had when None.

    Raises:
        TableError: Metadata, columns or configs are not those of a table.
        InvalidTargetError: A latency is not finite and above 0, or all of a device are equal.
        UnknownNameError: The family of its space is not installed.
    """
    try:
        described = json.loads(data.schema.metadata[METADATA])
        if described["format"] != FORMAT:
            raise TableError(
                f"the file is of format {described['format']!r}; known here: {FORMAT}. "
                "A newer netcarve wrote it"
            )
        definition = dict(described["definition"])
        names = _names(definition)
        devices = tuple(
            TableDevice(str(d["name"]), str(d["family"]), str(d["hardware"]), Source.IMPORTED)
            for d in described["devices"]
        )
        title = str(described["name"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TableError(f"the file's description of its table is damaged: {error!r}") from None
    if len({device.name for device in devices}) != len(devices):
        raise TableError("the file's description of its table names a device twice")
    values = {column: _column(data, column).to_pylist() for column in names}
    rows = [dict(zip(names, row, strict=True)) for row in zip(*values.values(), strict=True)]
    if "space" in definition:
        space = SearchSpace.from_json(definition["space"])
        found = [space_config(space, row) for row in rows]
        keys, configs = [c.key for c in found], [c.to_json() for c in found]
        key: str | None = space_key(space)
    else:
        schema = ConfigSchema.from_json(definition["schema"])
        schema_configs(schema, rows)
        keys, configs = [config_key(schema, row) for row in rows], rows
        key = None
    return StoredTable(
        name=name or title,
        definition=definition,
        space_key=key,
        devices=devices,
        configs=keyed(keys, configs),
        latencies={d.name: latency_column(data, LATENCY + d.name) for d in devices},
        repeats={d.name: latency_column(data, REPEAT + d.name, vary=False) for d in devices},
    )


def keyed(keys: list[str], configs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Key -> config.

    Raises:
        TableError: A config occurs twice.
    """
    first: dict[str, int] = {}
    for row, key in enumerate(keys):
        if key in first:
            raise TableError(f"rows {first[key]} and {row} hold the same config")
        first[key] = row
    return dict(zip(keys, configs, strict=True))


def numbers(data: pa.Table, name: str) -> FloatArray:
    """A numeric column, float64 (P,), NaN where it is null.

    Raises:
        TableError: There is no such column, or it holds no numbers.
    """
    column = _column(data, name)
    if not is_numeric(column.type):
        raise TableError(f"column {name!r} holds {column.type}; expected numbers")
    found: FloatArray = column.cast(pa.float64(), safe=False).to_numpy()
    return found


def is_numeric(kind: pa.DataType) -> bool:
    """Whether a column of this type holds numbers."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def latency_column(data: pa.Table, name: str, *, vary: bool = True) -> FloatArray:
    """Latencies (P,) in ms, NaN where the column is null.

    Args:
        data: The content of the file.
        name: Of the column.
        vary: Whether several of them must differ.

    Raises:
        TableError: There is no such column, or it holds no numbers.
        InvalidTargetError: A value is NaN, infinite or not above 0, or all are equal.
    """
    values = numbers(data, name)
    missing = _column(data, name).is_null().to_numpy()
    wrong = np.flatnonzero(~missing & ~(np.isfinite(values) & (values > 0)))
    if wrong.size:
        raise InvalidTargetError(
            f"column {name!r}, row {wrong[0]}: {values[wrong[0]]} ms; must be finite and above 0, "
            "or null where it was not measured"
        )
    known = values[~missing]
    if vary and len(known) > 1 and np.ptp(known) <= 1e-9 * known.max():
        raise InvalidTargetError(
            f"column {name!r}: all {len(known)} latencies are {known[0]} ms; latencies of "
            "different configs must differ"
        )
    return values


def _present(table: StoredTable) -> list[Mapping[str, Any]]:
    """The values of every config, None for choices that it does not have."""
    if "space" not in table.definition:
        return list(table.configs.values())
    space = SearchSpace.from_json(table.definition["space"])
    configs = [space_config(space, values) for values in table.configs.values()]
    return [
        {
            name: value if active else None
            for (name, value), active in zip(
                config.items(), space.active(config.indices[None])[0], strict=True
            )
        }
        for config in configs
    ]


def _names(definition: Mapping[str, Any]) -> list[str]:
    """The columns that describe a config."""
    if "space" in definition:
        return list(SearchSpace.from_json(definition["space"]).names)
    schema = ConfigSchema.from_json(definition["schema"])
    return [column.name for column in schema.columns] + [amount.name for amount in schema.amounts]


def _column(data: pa.Table, name: str) -> pa.ChunkedArray:
    if name not in data.column_names:
        raise TableError(f"the file has no column {name!r}")
    return data.column(name)


def _damaged(file: Path, error: Exception) -> TableError:
    reason = " ".join(str(error).split())[:200]
    return TableError(f"{str(file)!r} is damaged, or no Parquet file: {reason}")

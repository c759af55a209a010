"""Latency tables of the store as latency predictors see them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predictors.errors import TableError
from predictors.latency import Configs, ConfigSchema, LatencyTables, SpaceEncoding
from predictors.latency.configs import ABSENT
from search.store import Store
from search.store_latencies import DeviceCount, StoredTable
from spaces import Config, SearchSpace, SpaceError, UnknownNameError

FloatArray = NDArray[np.float64]
Values = Mapping[str, Any]


def space_key(space: SearchSpace) -> str:
    """What a space shares with all its restrictions: the family and its settings, 16 hex digits."""
    return _digest({"family": space.family.name, "settings": space.family.to_json()})


def space_definition(space: SearchSpace, name: str) -> dict[str, Any]:
    """The definition of a table of `space` and of every other restriction of the same base.

    Args:
        space: The space.
        name: Of its base.
    """
    return {"space": SearchSpace(name, space.family).to_json()}


def config_key(schema: ConfigSchema, values: Values) -> str:
    """16 hex digits that name a config of an imported table: its choices, not its amounts."""
    return _digest({column.name: values[column.name] for column in schema.columns})


def load_tables(
    store: Store, space: SearchSpace, encoding: SpaceEncoding, exclude: Collection[str] = ()
) -> LatencyTables | None:
    """What the store knows about latencies of a space, on all devices of all its tables.

    Args:
        store: The store.
        space: The space; configs that it does not contain are left out.
        encoding: Of that space.
        exclude: Names of devices that are left out.

    Returns:
        All configs that some device was measured on; None where there is no device with different
        latencies. Of devices of one name in several tables the later ones are called TABLE/NAME.
    """
    configs: dict[str, Config] = {}
    found: dict[str, dict[str, float]] = {}
    families: dict[str, str] = {}
    for name in store.latencies.of_space(space_key(space)):
        table = store.latencies.read(name)
        inside = {
            place: config
            for place, values in enumerate(table.configs.values())
            if (config := find_config(space, values)) is not None
        }
        for device in table.devices:
            if device.name in exclude:
                continue
            label = device.name if device.name not in found else f"{name}/{device.name}"
            column = table.latencies[device.name]
            known = {config: float(column[place]) for place, config in inside.items()}
            known = {config: ms for config, ms in known.items() if not np.isnan(ms)}
            if len(set(known.values())) < 2:
                continue
            configs.update((config.key, config) for config in known)
            found[label] = {config.key: ms for config, ms in known.items()}
            families[label] = device.family
    if not found:
        return None
    population = np.stack([config.indices for config in configs.values()])
    latencies = {
        label: np.array([known.get(key, np.nan) for key in configs])
        for label, known in found.items()
    }
    return LatencyTables(encoding(population), latencies, families)


def load_named(store: Store, name: str) -> LatencyTables:
    """A table of the store, imported or of a space. Devices without latencies are left out.

    Raises:
        UnknownNameError: No such table, or its space's family is not installed.
        InvalidTargetError: A device has one latency only, or equal ones.
    """
    return predictor_tables(store.latencies.read(name))


def predictor_tables(table: StoredTable) -> LatencyTables:
    """A stored table, as predictors see it; devices without latencies are left out.

    Raises:
        TableError: A config does not belong to the table.
        InvalidTargetError: A latency is not finite and above 0, or a device has one latency only,
            or equal ones.
    """
    if "schema" in table.definition:
        schema = ConfigSchema.from_json(table.definition["schema"])
        configs = schema_configs(schema, table.configs.values())
    else:
        space = SearchSpace.from_json(table.definition["space"])
        rows = [space_config(space, values).indices for values in table.configs.values()]
        encoding = SpaceEncoding(space)
        configs = encoding(np.stack(rows)) if rows else _none(encoding.schema)
    known = {d: ms for d, ms in table.latencies.items() if not np.isnan(ms).all()}
    families = {device.name: device.family for device in table.devices if device.name in known}
    return LatencyTables(configs, known, families)


def schema_configs(schema: ConfigSchema, rows: Iterable[Values]) -> Configs:
    """Configs of an imported table.

    Args:
        schema: Of the table.
        rows: Name -> value of each config: a choice or None of each column, a number of each
            amount.

    Raises:
        TableError: A value is missing or not among the choices.
    """
    listed = list(rows)
    if not listed:
        return _none(schema)
    codes = np.full((len(listed), len(schema.columns)), ABSENT, np.int16)
    for number, column in enumerate(schema.columns):
        known = {choice: code for code, choice in enumerate(column.choices)} | {None: ABSENT}
        for place, row in enumerate(listed):
            value = row.get(column.name)
            if value not in known:
                raise TableError(
                    f"config {place}: {column.name} is {value!r}; allowed: {column.choices}"
                )
            codes[place, number] = known[value]
    amounts = [[float(row[a.name]) for a in schema.amounts] for row in listed]
    return Configs(schema, codes, np.array(amounts, np.float64).reshape(len(listed), -1))


def find_config(space: SearchSpace, values: Values) -> Config | None:
    """The config with these values, None where the space does not contain it."""
    try:
        return space.config(values)
    except (SpaceError, UnknownNameError):
        return None


def space_config(space: SearchSpace, values: Values) -> Config:
    """The config with these values.

    Raises:
        TableError: The space does not contain it.
    """
    try:
        return space.config(values)
    except (SpaceError, UnknownNameError) as error:
        raise TableError(f"a config does not belong to {space.name}: {error}") from None


@dataclass(frozen=True)
class TableSummary:
    """A table of the store.

    Attributes:
        name: Its name.
        space: Name of the space that its configs belong to, None for an imported one of others.
        configs: Number of configs.
        devices: Its devices, with what is known of each.
    """

    name: str
    space: str | None
    configs: int
    devices: tuple[DeviceCount, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON-ready fields."""
        devices = [
            {**asdict(count.device), "latencies": count.latencies, "repeats": count.repeats,
             "failures": count.failures}
            for count in self.devices
        ]  # fmt: skip
        return {
            "name": self.name,
            "space": self.space,
            "configs": self.configs,
            "devices": devices,
        }


def list_tables(store: Store) -> list[TableSummary]:
    """Every latency table by name."""
    return [show_table(store, row.name, row.definition) for row in store.latencies.tables()]


def show_table(store: Store, name: str, definition: Mapping[str, Any]) -> TableSummary:
    """What is known in one table."""
    configs, devices = store.latencies.counts(name)
    space = definition["space"]["name"] if "space" in definition else None
    return TableSummary(name, space, configs, tuple(devices))


def _none(schema: ConfigSchema) -> Configs:
    shapes: Sequence[int] = (len(schema.columns), len(schema.amounts))
    return Configs(schema, np.zeros((0, shapes[0]), np.int16), np.zeros((0, shapes[1])))


def _digest(data: Mapping[str, Any]) -> str:
    text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]

"""Latency tables: what devices took for configs, each pair recorded once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from search.errors import RecordConflictError
from search.models import (
    LatencyConfigRow,
    LatencyDeviceRow,
    LatencyRow,
    LatencyTableRow,
    Source,
)
from search.store_session import Sessions, insert_into, insert_once, now
from spaces.errors import UnknownNameError

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TableDevice:
    """A device of a latency table.

    Attributes:
        name: What the table calls it.
        family: Devices of one family resemble each other, see `LatencyTables`.
        hardware: Name of its processor, empty when it is not known.
        source: Whether it was measured here or imported.
    """

    name: str
    family: str
    hardware: str = ""
    source: Source = Source.MEASURED


@dataclass(frozen=True, slots=True)
class LatencyRecord:
    """What one device took for one config.

    Attributes:
        key: Of the config.
        device: Name of the device.
        latency_ms: Median latency, None when it could not be measured.
        repeat_ms: Median of a second, later measurement of the same binary, where there is one.
        error: Why it could not be measured.
    """

    key: str
    device: str
    latency_ms: float | None
    repeat_ms: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class StoredTable:
    """A latency table as it is stored.

    Attributes:
        name: Its name.
        definition: What its configs are, see `LatencyTableRow`.
        space_key: Of the space that the configs belong to, None for a table of something else.
        devices: Its devices, in the order in which they were recorded.
        configs: Key -> values, P of them, in the order in which they were recorded.
        latencies: Device -> (P,) ms, NaN where there is none.
        repeats: Device -> (P,) ms of the second measurements, NaN where there is none.
        failures: (key, device) -> why there is no latency.
    """

    name: str
    definition: Mapping[str, Any]
    space_key: str | None
    devices: tuple[TableDevice, ...]
    configs: Mapping[str, Mapping[str, Any]]
    latencies: Mapping[str, FloatArray]
    repeats: Mapping[str, FloatArray]
    failures: Mapping[tuple[str, str], str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DeviceCount:
    """A device of a table, with its number of latencies, repeats and failures."""

    device: TableDevice
    latencies: int
    repeats: int
    failures: int


class LatencyRecords:
    """Latency tables by name."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def open_table(
        self,
        name: str,
        definition: Mapping[str, Any],
        space_key: str,
        devices: Iterable[TableDevice],
    ) -> None:
        """Make a table of a space and its devices be there, to be recorded into.

        Raises:
            RecordConflictError: A table of that name is of another space, or has a device of one of
                these names that is something else; nothing is changed.
        """
        with self._sessions.writing() as session:
            _insert_table(session, name, definition, space_key)
            if session.get_one(LatencyTableRow, name).space_key != space_key:
                raise RecordConflictError(
                    f"latency table {name!r} exists and is of another space. Give the new one "
                    "another name."
                )
            for device in devices:
                _insert_device(session, name, device)

    def record(
        self, name: str, configs: Mapping[str, Mapping[str, Any]], records: Sequence[LatencyRecord]
    ) -> None:
        """Record latencies, in one transaction. A latency that is there stays; a failure gives way.

        Args:
            name: Of a table that is there, with the devices.
            configs: Key -> values of every config of the records.
            records: What was measured.
        """
        with self._sessions.writing() as session:
            _insert_records(session, name, configs, records)

    def add_table(self, table: StoredTable) -> None:
        """Store a whole table, in one transaction.

        Raises:
            RecordConflictError: A table of that name exists; nothing is changed.
        """
        with self._sessions.writing() as session:
            if not _insert_table(session, table.name, table.definition, table.space_key):
                raise RecordConflictError(
                    f"latency table {table.name!r} exists. Give the new one another name."
                )
            for device in table.devices:
                _insert_device(session, table.name, device)
            _insert_records(session, table.name, table.configs, _records(table))

    def tables(self) -> Sequence[LatencyTableRow]:
        """All tables by name."""
        with self._sessions.reading() as session:
            return session.scalars(select(LatencyTableRow).order_by(LatencyTableRow.name)).all()

    def of_space(self, space_key: str) -> list[str]:
        """Names of the tables of a space, oldest first."""
        order = LatencyTableRow.created, LatencyTableRow.name
        statement = select(LatencyTableRow.name).filter_by(space_key=space_key).order_by(*order)
        with self._sessions.reading() as session:
            return list(session.scalars(statement))

    def counts(self, name: str) -> tuple[int, list[DeviceCount]]:
        """Number of configs of a table, and what is known of each device.

        Raises:
            UnknownNameError: No such table.
        """
        with self._sessions.reading() as session:
            _table(session, name)
            configs = session.scalar(
                select(func.count()).select_from(LatencyConfigRow).filter_by(table_name=name)
            )
            found = session.execute(
                select(
                    LatencyDeviceRow,
                    func.count(LatencyRow.latency_ms),
                    func.count(LatencyRow.repeat_ms),
                    func.count(LatencyRow.error),
                )
                .outerjoin(LatencyRow, LatencyRow.device_id == LatencyDeviceRow.id)
                .where(LatencyDeviceRow.table_name == name)
                .group_by(LatencyDeviceRow.id)
                .order_by(LatencyDeviceRow.id)
            ).all()
        return int(configs or 0), [DeviceCount(_device(row), *rest) for row, *rest in found]

    def read(self, name: str) -> StoredTable:
        """A whole table.

        Raises:
            UnknownNameError: No such table; the message lists the known ones.
        """
        with self._sessions.reading() as session:
            table = _table(session, name)
            devices = session.scalars(
                select(LatencyDeviceRow).filter_by(table_name=name).order_by(LatencyDeviceRow.id)
            ).all()
            configs = session.scalars(
                select(LatencyConfigRow).filter_by(table_name=name).order_by(LatencyConfigRow.id)
            ).all()
            rows = session.execute(
                select(
                    LatencyRow.config_id,
                    LatencyRow.device_id,
                    LatencyRow.latency_ms,
                    LatencyRow.repeat_ms,
                    LatencyRow.error,
                )
                .join(LatencyDeviceRow, LatencyRow.device_id == LatencyDeviceRow.id)
                .where(LatencyDeviceRow.table_name == name)
            ).all()
        places = {row.id: place for place, row in enumerate(configs)}
        names = {row.id: row.name for row in devices}
        latencies = {row.name: np.full(len(configs), np.nan) for row in devices}
        repeats = {row.name: np.full(len(configs), np.nan) for row in devices}
        failures = {}
        for config_id, device_id, latency, repeat, error in rows:
            place, device = places[config_id], names[device_id]
            if latency is not None:
                latencies[device][place] = latency
            if repeat is not None:
                repeats[device][place] = repeat
            if error is not None:
                failures[configs[place].key, device] = error
        return StoredTable(
            name=name,
            definition=table.definition,
            space_key=table.space_key,
            devices=tuple(map(_device, devices)),
            configs={row.key: row.config for row in configs},
            latencies=latencies,
            repeats=repeats,
            failures=failures,
        )


def _table(session: Session, name: str) -> LatencyTableRow:
    row = session.get(LatencyTableRow, name)
    if row is None:
        raise UnknownNameError("latency table", name, session.scalars(select(LatencyTableRow.name)))
    return row


def _device(row: LatencyDeviceRow) -> TableDevice:
    return TableDevice(row.name, row.family, row.hardware, Source(row.source))


def _insert_table(
    session: Session, name: str, definition: Mapping[str, Any], space_key: str | None
) -> bool:
    values = {"name": name, "definition": dict(definition), "space_key": space_key}
    return insert_once(session, LatencyTableRow, {**values, "created": now()})


def _insert_device(session: Session, table: str, device: TableDevice) -> None:
    values = {"family": device.family, "hardware": device.hardware, "source": device.source.value}
    key = {"table_name": table, "name": device.name}
    if insert_once(session, LatencyDeviceRow, {**key, **values}):
        return
    found = _device(session.scalars(select(LatencyDeviceRow).filter_by(**key)).one())
    if found != device:
        raise RecordConflictError(
            f"device {device.name!r} of latency table {table!r} is another one: {found.source}, "
            f"family {found.family}, {found.hardware or 'unknown hardware'}; this one is "
            f"{device.source}, family {device.family}, {device.hardware or 'unknown hardware'}. "
            "Record into a table of another name."
        )


def _insert_records(
    session: Session,
    table: str,
    configs: Mapping[str, Mapping[str, Any]],
    records: Sequence[LatencyRecord],
) -> None:
    if not records:
        return
    session.execute(
        insert_into(session, LatencyConfigRow).on_conflict_do_nothing(),
        [{"table_name": table, "key": k, "config": dict(c)} for k, c in configs.items()],
    )
    config_row, device_row = LatencyConfigRow, LatencyDeviceRow
    keys = session.execute(select(config_row.key, config_row.id).filter_by(table_name=table))
    names = session.execute(select(device_row.name, device_row.id).filter_by(table_name=table))
    config_ids = {row.key: row.id for row in keys}
    device_ids = {row.name: row.id for row in names}
    insert = insert_into(session, LatencyRow)
    new = insert.excluded
    session.execute(
        insert.on_conflict_do_update(
            index_elements=[LatencyRow.config_id, LatencyRow.device_id],
            set_={name: new[name] for name in ("latency_ms", "repeat_ms", "error", "created")},
            where=LatencyRow.latency_ms.is_(None),
        ),
        [
            {
                "config_id": config_ids[record.key],
                "device_id": device_ids[record.device],
                "latency_ms": record.latency_ms,
                "repeat_ms": record.repeat_ms,
                "error": record.error,
                "created": now(),
            }
            for record in records
        ],
    )


def _records(table: StoredTable) -> list[LatencyRecord]:
    found = []
    for device in table.devices:
        pairs = zip(table.latencies[device.name], table.repeats[device.name], strict=True)
        for key, (latency, repeat) in zip(table.configs, pairs, strict=True):
            if not np.isnan(latency):
                second = None if np.isnan(repeat) else float(repeat)
                found.append(LatencyRecord(key, device.name, float(latency), second))
    return found

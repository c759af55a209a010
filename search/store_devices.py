"""Registered devices and the search spaces registered for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from search.errors import RecordConflictError
from search.models import DeviceRow, DeviceSpaceRow
from search.store_session import Sessions, insert_once, now
from spaces.errors import UnknownNameError


class DeviceRecords:
    """Devices by name, and spaces by (device, name)."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def record_devices(
        self,
        devices: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]],
        *,
        replace: bool = False,
    ) -> None:
        """Store devices and what their probes found, in one transaction: all of them or none.

        Args:
            devices: Name -> (configuration, capabilities). The capabilities of a device that is
                there with the same configuration are renewed.
            replace: Whether to overwrite a device of another configuration.

        Raises:
            RecordConflictError: a name is taken by a device of another configuration.
        """
        with self._sessions.writing() as session:
            for name, (config, capabilities) in devices.items():
                values = {"config": dict(config), "capabilities": dict(capabilities)}
                if insert_once(session, DeviceRow, {"name": name, "created": now(), **values}):
                    continue
                row = session.get_one(DeviceRow, name)
                if row.config != values["config"] and not replace:
                    raise _conflict(row)
                row.config, row.capabilities = values["config"], values["capabilities"]

    def device(self, name: str) -> DeviceRow:
        """The device of that name.

        Raises:
            UnknownNameError: no such device; the message lists the known ones.
        """
        with self._sessions.reading() as session:
            return self._device(session, name)

    def devices(self) -> Sequence[DeviceRow]:
        """All devices by name."""
        with self._sessions.reading() as session:
            return session.scalars(select(DeviceRow).order_by(DeviceRow.name)).all()

    def record_space(
        self, device: str, name: str, base_space: str, space: Mapping[str, Any], source: str
    ) -> bool:
        """Register a search space for a device; whether it was new.

        A space of that name is replaced: running jobs hold their own copy.

        Args:
            device: A registered device.
            name: The space's name on that device.
            base_space: The registered space that it restricts.
            space: The restricted space as JSON.
            source: The YAML text that it was made from.

        Raises:
            UnknownNameError: no such device.
        """
        values = {"base_space": base_space, "space": dict(space), "source": source}
        with self._sessions.writing() as session:
            self._device(session, device)
            key = {"device": device, "name": name}
            if insert_once(session, DeviceSpaceRow, {**key, **values, "created": now()}):
                return True
            row = session.get_one(DeviceSpaceRow, (device, name))
            row.base_space, row.space, row.source = base_space, dict(space), source
            return False

    def space(self, device: str, name: str) -> DeviceSpaceRow:
        """The space of that name on a device.

        Raises:
            UnknownNameError: no such device, or no such space on it.
        """
        with self._sessions.reading() as session:
            self._device(session, device)
            row = session.get(DeviceSpaceRow, (device, name))
            if row is None:
                names = select(DeviceSpaceRow.name).where(DeviceSpaceRow.device == device)
                raise UnknownNameError(f"space of device {device}", name, session.scalars(names))
            return row

    def spaces(self, device: str | None = None) -> Sequence[DeviceSpaceRow]:
        """All registered spaces, or those of one device, by device and name."""
        statement = select(DeviceSpaceRow).order_by(DeviceSpaceRow.device, DeviceSpaceRow.name)
        if device is not None:
            statement = statement.where(DeviceSpaceRow.device == device)
        with self._sessions.reading() as session:
            return session.scalars(statement).all()

    def _device(self, session: Session, name: str) -> DeviceRow:
        row = session.get(DeviceRow, name)
        if row is None:
            raise UnknownNameError("device", name, session.scalars(select(DeviceRow.name)))
        return row


def _conflict(row: DeviceRow) -> RecordConflictError:
    return RecordConflictError(
        f"device {row.name!r} exists with another configuration: {row.config}. "
        "Give the new one another name, or replace it."
    )

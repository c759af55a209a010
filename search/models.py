"""The tables of the store, as SQLAlchemy models.

Times are seconds since the epoch (UTC). Every change here needs a revision in `migrations/`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, TypeAlias

from sqlalchemy import JSON, BigInteger, Double, ForeignKey, Index, MetaData, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

JsonObject: TypeAlias = dict[str, Any]


# In a job's spec: where its data and its teacher were last, which does not decide what job it is.
PLACES = "places"


class JobState(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    STOPPED = "stopped"
    DONE = "done"
    FAILED = "failed"


class Purpose(StrEnum):
    """Why a bundle was measured: to adapt the predictor, to verify a candidate, at the end, or
    because its subnet has been fine-tuned."""

    REFERENCE = "reference"
    VERIFY = "verify"
    FINAL = "final"
    FINETUNED = "finetuned"


class Source(StrEnum):
    """Where the latencies of a device in a latency table come from."""

    MEASURED = "measured"
    IMPORTED = "imported"


class Base(DeclarativeBase):
    """Base of the store's models; constraint names are the same on every database."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it as a plain class attribute
        # Not PostgreSQL's JSONB, which does not keep the order of keys.
        JsonObject: JSON(),
        float: Double(),
        str: Text(),
    }


class DeviceRow(Base):
    """A registered device: its configuration and what its probe found."""

    __tablename__ = "device"

    name: Mapped[str] = mapped_column(primary_key=True)
    config: Mapped[JsonObject]
    capabilities: Mapped[JsonObject]
    created: Mapped[float]


class DeviceSpaceRow(Base):
    """A search space registered for one device."""

    __tablename__ = "device_space"

    device: Mapped[str] = mapped_column(ForeignKey("device.name"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    base_space: Mapped[str]
    space: Mapped[JsonObject]
    source: Mapped[str]
    created: Mapped[float]


class SupernetRow(Base):
    """A trained supernet, found by the key of everything that decides its weights."""

    __tablename__ = "supernet"

    key: Mapped[str] = mapped_column(primary_key=True)
    artifact: Mapped[str]
    metrics: Mapped[JsonObject]
    created: Mapped[float]


class JobRow(Base):
    """A user's request, its state, and the lease of the process that is running it."""

    __tablename__ = "job"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    state: Mapped[str]
    spec: Mapped[JsonObject]
    digest: Mapped[str] = mapped_column(index=True)
    space_key: Mapped[str]
    seed: Mapped[int] = mapped_column(BigInteger)
    error: Mapped[str | None]
    created: Mapped[float]
    updated: Mapped[float]
    lease_token: Mapped[str | None]
    lease_host: Mapped[str | None]
    lease_pid: Mapped[int | None]
    lease_started: Mapped[str | None]
    heartbeat: Mapped[float | None]

    @property
    def settings(self) -> JsonObject:
        """The job file but for its resources, with the paths that data and teacher had last."""
        places = self.spec.get(PLACES, {})
        return self.spec["settings"] | {
            section: self.spec["settings"][section] | paths for section, paths in places.items()
        }


class EvaluationRow(Base):
    """The verified accuracy and cost of one config of a job."""

    __tablename__ = "evaluation"
    __table_args__ = (UniqueConstraint("job_id", "config_key"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("job.id"))
    config_key: Mapped[str]
    config: Mapped[JsonObject]
    split: Mapped[str]
    accuracy: Mapped[float]
    loss: Mapped[float | None]
    count: Mapped[int]
    costs: Mapped[JsonObject]
    artifact: Mapped[str | None]
    seconds: Mapped[float]
    created: Mapped[float]


class MeasurementRow(Base):
    """The latency of one config of a job on one device, as `Measurement.to_json` gives it."""

    __tablename__ = "measurement"
    __table_args__ = (UniqueConstraint("job_id", "config_key", "device", "purpose"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("job.id"))
    config_key: Mapped[str]
    config: Mapped[JsonObject]
    device: Mapped[str] = mapped_column(ForeignKey("device.name"))
    purpose: Mapped[str]
    measurement: Mapped[JsonObject]
    extra: Mapped[JsonObject]
    created: Mapped[float]


class BundleRow(Base):
    """A bundle that a job wrote for one device."""

    __tablename__ = "bundle"
    __table_args__ = (UniqueConstraint("job_id", "device", "config_key"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("job.id"))
    device: Mapped[str] = mapped_column(ForeignKey("device.name"))
    config_key: Mapped[str]
    path: Mapped[str]
    manifest_sha256: Mapped[str]
    metrics: Mapped[JsonObject]
    created: Mapped[float]


class JobEventRow(Base):
    """Something that happened in a job: a phase and its seconds, a failed item, a takeover."""

    __tablename__ = "job_event"
    __table_args__ = (Index(None, "job_id", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("job.id"))
    kind: Mapped[str]
    phase: Mapped[str]
    seconds: Mapped[float | None]
    data: Mapped[JsonObject]
    created: Mapped[float]


class CheckpointRow(Base):
    """State of a running job that a resumed run continues from, for example a sampler's."""

    __tablename__ = "checkpoint"

    job_id: Mapped[str] = mapped_column(ForeignKey("job.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    data: Mapped[JsonObject]
    updated: Mapped[float]


class LatencyTableRow(Base):
    """A latency table: latencies of configs of one space on several devices.

    `definition` says what its configs are: `{"space": ...}` as `SearchSpace.to_json` gives it,
    with the `space_key` that its restrictions share, or the `{"schema": ...}` of an imported table.
    """

    __tablename__ = "latency_table"

    name: Mapped[str] = mapped_column(primary_key=True)
    definition: Mapped[JsonObject]
    space_key: Mapped[str | None] = mapped_column(index=True)
    created: Mapped[float]


class LatencyDeviceRow(Base):
    """A device of a latency table."""

    __tablename__ = "latency_device"
    __table_args__ = (UniqueConstraint("table_name", "name"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    table_name: Mapped[str] = mapped_column(ForeignKey("latency_table.name"))
    name: Mapped[str]
    family: Mapped[str]
    hardware: Mapped[str]
    source: Mapped[str]


class LatencyConfigRow(Base):
    """A config of a latency table."""

    __tablename__ = "latency_config"
    __table_args__ = (UniqueConstraint("table_name", "key"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    table_name: Mapped[str] = mapped_column(ForeignKey("latency_table.name"))
    key: Mapped[str]
    config: Mapped[JsonObject]


class LatencyRow(Base):
    """What a device took for a config: its latency, or why it has none."""

    __tablename__ = "latency"

    config_id: Mapped[int] = mapped_column(ForeignKey("latency_config.id"), primary_key=True)
    device_id: Mapped[int] = mapped_column(ForeignKey("latency_device.id"), primary_key=True)
    latency_ms: Mapped[float | None]
    repeat_ms: Mapped[float | None]
    error: Mapped[str | None]
    created: Mapped[float]

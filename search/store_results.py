"""Supernets, evaluations, measurements and bundles: each is recorded once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select

from search.models import BundleRow, EvaluationRow, MeasurementRow, Purpose, SupernetRow
from search.store_session import Sessions, insert_once, now


class ResultRecords:
    """Results of jobs. Rows come in the order in which they were recorded."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def record_supernet(self, key: str, artifact: str, metrics: Mapping[str, Any]) -> bool:
        """Store a trained supernet under its key; whether it was new."""
        values = {"key": key, "artifact": artifact, "metrics": dict(metrics), "created": now()}
        with self._sessions.writing() as session:
            return insert_once(session, SupernetRow, values)

    def describe_supernet(self, key: str, metrics: Mapping[str, Any]) -> None:
        """Replace what is stored beside a trained supernet."""
        with self._sessions.writing() as session:
            session.get_one(SupernetRow, key).metrics = dict(metrics)

    def supernet(self, key: str) -> SupernetRow | None:
        """The supernet of that key."""
        with self._sessions.reading() as session:
            return session.get(SupernetRow, key)

    def supernets(self) -> Sequence[SupernetRow]:
        """All trained supernets, oldest first."""
        statement = select(SupernetRow).order_by(SupernetRow.created, SupernetRow.key)
        with self._sessions.reading() as session:
            return session.scalars(statement).all()

    def record_evaluation(
        self,
        job_id: str,
        config_key: str,
        config: Mapping[str, Any],
        *,
        accuracy: float,
        loss: float,
        count: int,
        split: str,
        costs: Mapping[str, Any],
        seconds: float,
        artifact: str | None = None,
    ) -> bool:
        """Store one verified evaluation; whether it was new (the first one stays).

        Args:
            job_id: The job.
            config_key: `Config.key`.
            config: `Config.to_json()`.
            accuracy: Top-1 accuracy, 0 to 1.
            loss: Mean cross-entropy; kept as None when it is not finite.
            count: Number of images evaluated.
            split: The split they are from.
            costs: Analytic and predicted costs by name.
            seconds: Wall time of the evaluation.
            artifact: Reference of the extracted subnet.
        """
        values = {
            "job_id": job_id,
            "config_key": config_key,
            "config": dict(config),
            "split": split,
            "accuracy": float(accuracy),
            "loss": float(loss) if math.isfinite(loss) else None,
            "count": int(count),
            "costs": dict(costs),
            "artifact": artifact,
            "seconds": float(seconds),
            "created": now(),
        }
        with self._sessions.writing() as session:
            return insert_once(session, EvaluationRow, values)

    def evaluations(self, job_id: str) -> Sequence[EvaluationRow]:
        """All evaluations of a job."""
        statement = select(EvaluationRow).where(EvaluationRow.job_id == job_id)
        with self._sessions.reading() as session:
            return session.scalars(statement.order_by(EvaluationRow.id)).all()

    def record_measurement(
        self,
        job_id: str,
        config_key: str,
        config: Mapping[str, Any],
        device: str,
        purpose: Purpose,
        measurement: Mapping[str, Any],
        extra: Mapping[str, Any],
    ) -> bool:
        """Store one measured latency; whether it was new (the first one stays).

        Args:
            job_id: The job.
            config_key: `Config.key`.
            config: `Config.to_json()`.
            device: Name of the device.
            purpose: Why it was measured; a config is measured once for each purpose.
            measurement: `Measurement.to_json()`.
            extra: What else is known of it, for example the prediction made before.
        """
        values = {
            "job_id": job_id,
            "config_key": config_key,
            "config": dict(config),
            "device": device,
            "purpose": Purpose(purpose).value,
            "measurement": dict(measurement),
            "extra": dict(extra),
            "created": now(),
        }
        with self._sessions.writing() as session:
            return insert_once(session, MeasurementRow, values)

    def measurements(
        self, job_id: str, *, device: str | None = None, purpose: Purpose | None = None
    ) -> Sequence[MeasurementRow]:
        """The measurements of a job, of one device and one purpose where given."""
        statement = select(MeasurementRow).where(MeasurementRow.job_id == job_id)
        if device is not None:
            statement = statement.where(MeasurementRow.device == device)
        if purpose is not None:
            statement = statement.where(MeasurementRow.purpose == purpose.value)
        with self._sessions.reading() as session:
            return session.scalars(statement.order_by(MeasurementRow.id)).all()

    def record_bundle(
        self,
        job_id: str,
        device: str,
        config_key: str,
        *,
        path: str,
        manifest_sha256: str,
        metrics: Mapping[str, Any],
    ) -> bool:
        """Store where a bundle lies; whether it was new. A later export replaces the place."""
        key = {"job_id": job_id, "device": device, "config_key": config_key}
        values = {
            "path": path,
            "manifest_sha256": manifest_sha256,
            "metrics": dict(metrics),
        }
        with self._sessions.writing() as session:
            if insert_once(session, BundleRow, {**key, **values, "created": now()}):
                return True
            row = session.scalars(select(BundleRow).filter_by(**key)).one()
            for name, value in values.items():
                setattr(row, name, value)
            return False

    def bundles(self, job_id: str, *, device: str | None = None) -> Sequence[BundleRow]:
        """The bundles of a job, of one device where given."""
        statement = select(BundleRow).where(BundleRow.job_id == job_id)
        if device is not None:
            statement = statement.where(BundleRow.device == device)
        with self._sessions.reading() as session:
            return session.scalars(statement.order_by(BundleRow.id)).all()

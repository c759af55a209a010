"""Jobs: what was asked for, where it stands, what happened in it."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from search.lease import LEASE_SECONDS, Lease, holder_of
from search.models import PLACES, CheckpointRow, JobEventRow, JobRow, JobState
from search.processes import is_gone
from search.store_session import Sessions, database_now, insert_once, now
from spaces.errors import UnknownNameError

# Letters and digits that cannot be mistaken for each other when an id is read aloud or typed.
_ID_ALPHABET = "23456789abcdefghjkmnpqrstuvwxyz"


def job_digest(spec: Mapping[str, Any], space_key: str, seed: int) -> str:
    """The SHA-256 of everything that decides a job: the same request gives the same digest."""
    decisive = {name: value for name, value in spec.items() if name != PLACES}
    content = {"spec": decisive, "space_key": space_key, "seed": seed}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class JobRecords:
    """Jobs, their leases, events and checkpoints."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def record_job(
        self, name: str, spec: Mapping[str, Any], space_key: str, seed: int
    ) -> tuple[JobRow, bool]:
        """Store a job, or find the one with the same request, so that the same command resumes;
        it then knows the places of the present request.

        Args:
            name: A readable name; the id is made from it.
            spec: The resolved job as JSON.
            space_key: `SearchSpace.key`.
            seed: The job's seed.

        Returns:
            The job, and whether it is new.
        """
        digest = job_digest(spec, space_key, seed)
        slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:24] or "job"
        with self._sessions.writing() as session:
            if session.get_bind().dialect.name == "postgresql":
                # Two equal commands at once must find one job; SQLite has one writer anyway.
                key = int(digest[:15], 16)
                session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})
            found = session.scalars(select(JobRow).where(JobRow.digest == digest)).one_or_none()
            if found is not None:
                if found.spec.get(PLACES) != spec.get(PLACES):
                    found.spec = dict(spec)
                return found, False
            while True:
                suffix = "".join(secrets.choice(_ID_ALPHABET) for _ in range(4))
                values = {
                    "id": f"{slug}-{suffix}",
                    "name": name,
                    "state": JobState.QUEUED.value,
                    "spec": dict(spec),
                    "digest": digest,
                    "space_key": space_key,
                    "seed": int(seed),
                    "created": now(),
                    "updated": now(),
                }
                if insert_once(session, JobRow, values):
                    return session.get_one(JobRow, values["id"]), True

    def job(self, job_id: str) -> JobRow:
        """The job of that id.

        Raises:
            UnknownNameError: no such job; the message lists the known ones.
        """
        with self._sessions.reading() as session:
            return self._job(session, job_id)

    def jobs(self) -> Sequence[JobRow]:
        """All jobs, oldest first."""
        with self._sessions.reading() as session:
            return session.scalars(select(JobRow).order_by(JobRow.created, JobRow.id)).all()

    def state(self, job_id: str) -> JobState:
        """Where a job stands; `STOPPED` when the process that was running it is gone.

        Raises:
            UnknownNameError: no such job.
        """
        with self._sessions.reading() as session:
            row = self._job(session, job_id)
            current: float = session.execute(select(database_now())).scalar_one()
        state = JobState(row.state)
        if state is not JobState.RUNNING:
            return state
        holder = holder_of(row)
        alive = holder is not None and not is_gone(holder)
        fresh = row.heartbeat is not None and row.heartbeat >= current - LEASE_SECONDS
        return JobState.RUNNING if alive and fresh else JobState.STOPPED

    def claim(self, job_id: str) -> Lease:
        """Take a job for this process. Use the lease as a context manager.

        Raises:
            UnknownNameError: no such job.
            JobBusyError: a live process is running it.
        """
        self.job(job_id)
        lease = Lease(self._sessions, job_id)
        taken_from = lease.claim()
        if taken_from is not None:
            data = {"host": taken_from.host, "pid": taken_from.pid}
            self.record_event(job_id, "takeover", data=data)
        return lease

    def record_event(
        self,
        job_id: str,
        kind: str,
        phase: str = "",
        *,
        seconds: float | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        """Append to the job's history."""
        event = JobEventRow(
            job_id=job_id,
            kind=kind,
            phase=phase,
            seconds=seconds,
            data=dict(data or {}),
            created=now(),
        )
        with self._sessions.writing() as session:
            session.add(event)

    def events(self, job_id: str, kind: str | None = None) -> Sequence[JobEventRow]:
        """The job's history, oldest first, of one kind where given."""
        statement = select(JobEventRow).where(JobEventRow.job_id == job_id)
        if kind is not None:
            statement = statement.where(JobEventRow.kind == kind)
        with self._sessions.reading() as session:
            return session.scalars(statement.order_by(JobEventRow.id)).all()

    @contextmanager
    def phase(self, job_id: str, name: str) -> Iterator[None]:
        """Time a block as a phase of the job, also when it ends with an error."""
        start, failure = time.monotonic(), None
        try:
            yield
        except BaseException as error:
            failure = type(error).__name__
            raise
        finally:
            data = {} if failure is None else {"interrupted_by": failure}
            seconds = time.monotonic() - start
            self.record_event(job_id, "phase", name, seconds=seconds, data=data)

    def phase_seconds(self, job_id: str) -> dict[str, float]:
        """Seconds spent in each phase, over all runs of the job, in the order of first use."""
        statement = (
            select(JobEventRow.phase, func.sum(JobEventRow.seconds))
            .where(JobEventRow.job_id == job_id, JobEventRow.kind == "phase")
            .group_by(JobEventRow.phase)
            .order_by(func.min(JobEventRow.id))
        )
        with self._sessions.reading() as session:
            return {phase: seconds or 0.0 for phase, seconds in session.execute(statement)}

    def save_checkpoint(self, job_id: str, name: str, data: Mapping[str, Any]) -> None:
        """Store the state that a resumed run continues from, in place of the last one."""
        values = {"data": dict(data), "updated": now()}
        with self._sessions.writing() as session:
            if not insert_once(session, CheckpointRow, {"job_id": job_id, "name": name, **values}):
                row = session.get_one(CheckpointRow, (job_id, name))
                row.data, row.updated = dict(data), now()

    def checkpoint(self, job_id: str, name: str) -> dict[str, Any] | None:
        """The state stored last under that name."""
        with self._sessions.reading() as session:
            row = session.get(CheckpointRow, (job_id, name))
            return None if row is None else row.data

    def _job(self, session: Session, job_id: str) -> JobRow:
        row = session.get(JobRow, job_id)
        if row is None:
            raise UnknownNameError("job", job_id, session.scalars(select(JobRow.id)))
        return row

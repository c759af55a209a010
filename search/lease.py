"""The lease of a job: at most one live process runs it.

A lease is a random token in the job's row with the holder's host, process and heartbeat. It is
taken in one conditional UPDATE, kept by a thread that renews the heartbeat, and taken over when
its process is gone (seen at once on the same host) or its heartbeat is too old.
"""

from __future__ import annotations

import secrets
import threading
import time
from types import TracebackType

from sqlalchemy import or_, update

from search.errors import JobBusyError, LeaseLostError, StoreError
from search.models import JobRow, JobState
from search.processes import ProcessId, is_gone, this_process
from search.store_session import Sessions, database_now, now

LEASE_SECONDS = 60.0
HEARTBEAT_SECONDS = 10.0


def holder_of(row: JobRow) -> ProcessId | None:
    """The process that holds a job's lease, alive or not."""
    if row.lease_token is None:
        return None
    return ProcessId(row.lease_host or "", row.lease_pid or 0, row.lease_started or "")


class Lease:
    """A claimed job. As a context manager it renews itself and releases the job at the end.

    The job becomes `STOPPED` when the block ends before `finish`, `FAILED` with the message when
    it ends with an error; an interrupt is no error.
    """

    def __init__(
        self, sessions: Sessions, job_id: str, heartbeat_seconds: float = HEARTBEAT_SECONDS
    ) -> None:
        self.job_id = job_id
        self._sessions = sessions
        self._token = secrets.token_hex(16)
        self._interval = heartbeat_seconds
        # Why the job is no more this process's own; empty while it is.
        self._lost = ""
        self._released = threading.Event()
        self._thread: threading.Thread | None = None

    def claim(self) -> ProcessId | None:
        """Take the job; the dead process that it was taken over from, if any.

        Raises:
            JobBusyError: a live process is running it.
        """
        me = this_process()
        with self._sessions.writing() as session:
            row = session.get_one(JobRow, self.job_id)
            holder, holder_token = holder_of(row), row.lease_token
            free = [
                JobRow.lease_token.is_(None),
                JobRow.heartbeat < database_now() - LEASE_SECONDS,
            ]
            if holder is not None and is_gone(holder):
                # By token, so that of two processes that saw the same dead one only one wins.
                free.append(JobRow.lease_token == holder_token)
            taken = session.execute(
                update(JobRow)
                .where(JobRow.id == self.job_id, or_(*free))
                .values(
                    state=JobState.RUNNING.value,
                    error=None,
                    updated=now(),
                    lease_token=self._token,
                    lease_host=me.host,
                    lease_pid=me.pid,
                    lease_started=me.started,
                    heartbeat=database_now(),
                )
                .returning(JobRow.id)
                .execution_options(synchronize_session=False)
            ).first()
        if taken is None:
            who = f"process {holder.pid} on {holder.host.split('/')[0]}" if holder else "another"
            raise JobBusyError(
                f"job {self.job_id} is already running: {who} holds it. "
                f"Wait for it or stop it; a lost one is released after {LEASE_SECONDS:.0f} s."
            )
        return holder

    def renew(self) -> None:
        """Write a heartbeat.

        Raises:
            LeaseLostError: another process took the job over.
        """
        with self._sessions.writing() as session:
            kept = session.execute(
                update(JobRow)
                .where(JobRow.id == self.job_id, JobRow.lease_token == self._token)
                .values(heartbeat=database_now())
                .returning(JobRow.id)
                .execution_options(synchronize_session=False)
            ).first()
        if kept is None and not self._released.is_set():
            self._lost = (
                "was taken over by another process while this one was suspended for more than "
                f"{LEASE_SECONDS:.0f} s"
            )
            self.check()

    def check(self) -> None:
        """Cheap: no database access. Call it between steps of the work.

        Raises:
            LeaseLostError: another process took the job over, or may do so, because the heartbeat
                cannot be written.
        """
        if self._lost:
            raise LeaseLostError(
                f"job {self.job_id} {self._lost}; nothing that is stored is lost, stop here."
            )

    def finish(self, state: JobState, error: str | None = None) -> None:
        """Set the job's last state and release it. A lost lease changes nothing."""
        self._stop()
        with self._sessions.writing() as session:
            session.execute(
                update(JobRow)
                .where(JobRow.id == self.job_id, JobRow.lease_token == self._token)
                .values(
                    state=state.value,
                    error=error,
                    updated=now(),
                    lease_token=None,
                    lease_host=None,
                    lease_pid=None,
                    lease_started=None,
                    heartbeat=None,
                )
                .execution_options(synchronize_session=False)
            )

    def __enter__(self) -> Lease:
        self._thread = threading.Thread(target=self._beat, name="job-lease", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._released.is_set():
            return
        if isinstance(error, Exception):
            self.finish(JobState.FAILED, f"{type(error).__name__}: {error}")
        else:
            self.finish(JobState.STOPPED)

    def _stop(self) -> None:
        self._released.set()
        if self._thread is not None:
            self._thread.join()

    def _beat(self) -> None:
        renewed = time.monotonic()
        while not self._released.wait(self._interval):
            try:
                self.renew()
            except LeaseLostError:
                return
            except StoreError:
                # The next beat tries again. While the database is away nobody else gets the job;
                # once it is back, the token says whose it is.
                continue
            except Exception as error:
                # The lease lasts several beats; unrenewed for longer, anyone may take the job.
                if time.monotonic() - renewed > LEASE_SECONDS:
                    self._lost = (
                        "cannot be kept: its heartbeat was not written for more than "
                        f"{LEASE_SECONDS:.0f} s: {type(error).__name__}: {error}"
                    )
                    return
            else:
                renewed = time.monotonic()

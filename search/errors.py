"""What can go wrong in jobs, the store, artifacts, the host lock and execution."""

from __future__ import annotations

from spaces.errors import CorruptFileError, NetcarveError


class SearchError(NetcarveError):
    """Base of every error of this folder."""


class StoreError(SearchError):
    """The database cannot be opened, read or written."""


class NewerDatabaseError(StoreError):
    """The database was written by a newer netcarve; nothing in it was changed."""


class RecordConflictError(StoreError):
    """A record of that name exists and differs from the one to be stored."""


class JobBusyError(StoreError):
    """Another live process is running the job. The message names its host and process id."""


class LeaseLostError(StoreError):
    """This process no longer owns the job it was running, because another one took it over."""


class ArtifactError(SearchError):
    """An artifact cannot be stored, is missing, or its reference is malformed."""


class CorruptArtifactError(ArtifactError, CorruptFileError):
    """The bytes of an artifact do not have the hash that names them."""


class HostLockError(SearchError):
    """The host lock cannot be taken."""


class HostLockTimeoutError(HostLockError):
    """The host lock was not free in time. The message names who holds it."""


class ExecutionError(SearchError):
    """Ray cannot be started, reached, or used as asked."""


class VerificationError(SearchError):
    """Not one of a batch of subnets could be evaluated or built; the job can be resumed."""


class JobConfigError(SearchError):
    """A job file asks for something that is not allowed."""


class ObjectiveError(JobConfigError):
    """An objective or constraint is unknown, has no unit, or has the wrong one."""

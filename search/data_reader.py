"""The data of a job, read once for a whole command."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from search.progress import Progress
from supernet import DataConfig, DataSplits, load_data


@dataclass(frozen=True)
class JobData:
    """What a job has read.

    Attributes:
        splits: The images.
        identity: Hashes of their content and what else decides the splits, as JSON.
    """

    splits: DataSplits
    identity: dict[str, Any]


class DataReader:
    """Reads data when it is first asked for it; what it has read stays the same afterwards, as the
    images of a running job do.

    A command makes one and hands it to everything that needs the data of its job.
    """

    def __init__(self) -> None:
        self._config: DataConfig | None = None
        self._data: JobData | None = None

    def read(self, config: DataConfig, progress: Progress) -> JobData:
        """The data of `config`.

        Args:
            config: Data of another config takes the place of what was read before.
            progress: Told about the images that are read now.

        Raises:
            DataError: The data cannot be loaded.
        """
        if self._data is None or self._config != config:
            self._data = JobData(load_data(config, progress), config.identity())
            self._config = config
        return self._data

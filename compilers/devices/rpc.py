"""A CPU behind a TVM RPC server: binaries are compiled here, run and timed there."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from compilers import targets
from compilers.devices.base import DEVICES, DeviceConfig
from compilers.devices.host_built import HostBuiltDevice
from compilers.errors import (
    ChildTimeoutError,
    DeviceConnectionError,
    DeviceError,
    MeasurementError,
)
from compilers.isolation import Worker
from compilers.rpc_session import Server
from compilers.targets import Isa
from spaces.capabilities import DeviceCapabilities
from spaces.layer_spec import Operator

NATIVE = "native"
RETRY_SECONDS = 1.0
"""Pause before the one retry: a server that was restarted needs a moment."""

START_TIMEOUT = 120.0
"""Longest start of the child process, s; it imports TVM's runtime."""


class RpcConfig(DeviceConfig):
    """Settings of a device of kind `tvm_rpc`.

    Attributes:
        host: Where the server, or the tracker, listens.
        port: Where the server, or the tracker, listens.
        key: Name under which the server serves; it finds servers and keeps nobody out.
        tracker: Whether `host` and `port` are a tracker's, which picks a free server of that key.
        connect_timeout_s: Longest wait for a session; the server serves one at a time.
        timeout_s: Longest run or measurement.
    """

    kind: str = "tvm_rpc"
    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 9190
    # TVM's handshake separates its parts with blanks and colons.
    key: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{0,64}$")] = ""
    tracker: bool = False
    connect_timeout_s: Annotated[float, Field(gt=0)] = 30.0
    timeout_s: Annotated[float, Field(gt=0)] = 300.0

    @model_validator(mode="after")
    def _keyed(self) -> RpcConfig:
        if self.tracker and not self.key:
            raise ValueError("a tracker finds servers by their key; set key")
        return self


@DEVICES.register("tvm_rpc")
class RpcDevice(HostBuiltDevice):
    """The CPU of a TVM RPC server, with `config.isa`, `config.threads`, batch 1. See `Device`.

    One child process talks to the server, with a time limit on every request; a request that
    fails because the server is not there, or does not answer, is made once more. A session on the
    server lasts as long as requests follow each other. Only a server that `netcarve device serve`
    started tells its processor; with others `isa` must be named, and the hardware is its address.

    Raises:
        DeviceError: This host, which checks what it builds, does not execute the instruction set.
    """

    Config = RpcConfig
    config: RpcConfig

    def __init__(self, config: RpcConfig, cache: str | Path | None = None) -> None:
        super().__init__(config, cache)
        self._isa = None if config.isa == NATIVE else self._resolve(config.isa)
        self._client = Worker("rpc", MeasurementError)
        self._host: dict[str, Any] | None = None
        self._asked = False
        self._server = Server(
            host=config.host,
            port=config.port,
            key=config.key,
            tracker=config.tracker,
            threads=config.threads,
            session_seconds=2 * config.timeout_s,
        )

    @property
    def hardware(self) -> str:
        """See `Device.hardware`; asks the server once."""
        host = self._told()
        if host is None:
            return f"unknown CPU behind TVM RPC at {self.config.host}:{self.config.port}"
        return str(host["processor"])

    @property
    def isa(self) -> Isa:
        """See `HostBuiltDevice.isa`. `native` is the best that both the server and this host
        execute.

        Raises:
            DeviceError: It is `native`, and the server does not tell its instruction sets.
        """
        if self._isa is None:
            host = self._told()
            if host is None:
                raise DeviceError(
                    f"device {self.config.name}: isa is {NATIVE!r}, but {self._server} does not "
                    f"tell what its CPU executes; name it: {', '.join(targets.ISAS)}"
                )
            self._isa = self._resolve(NATIVE, targets.host_cpu_flags() & frozenset(host["flags"]))
        return self._isa

    def probe(self) -> DeviceCapabilities:
        """See `HostBuiltDevice.probe`.

        Raises:
            DeviceConnectionError: The server cannot be reached.
            DeviceError: Its CPU does not execute the instruction set, or does not tell which is
                its native one.
        """
        host, isa = self._told(), self.isa
        if host is not None and (missing := isa.cpu_flags - set(host["flags"])):
            raise DeviceError(
                f"device {self.config.name}: the CPU of {self._server} ({host['processor']}) lacks "
                f"{', '.join(sorted(missing))} for isa {isa.name!r}"
            )
        return super().probe()

    def close(self) -> None:
        """See `Device.close`."""
        super().close()
        self._client.close()

    def _check_kernels(self, operator: Operator, scheme: str) -> None:
        self._check_trials(operator, scheme, lambda trial: float(self._execute("kernel", trial)))

    def _told(self) -> dict[str, Any] | None:
        """What the server tells about its machine; None when it is not netcarve's."""
        if not self._asked:
            self._host = self._execute("connect", {})
            self._asked = True
        return self._host

    def _execute(self, command: str, arguments: Mapping[str, Any]) -> Any:
        """See `HostBuiltDevice._execute`: one attempt, and one more if the server is not there."""
        try:
            return self._attempt(command, arguments)
        except DeviceConnectionError:
            time.sleep(RETRY_SECONDS)
        try:
            return self._attempt(command, arguments)
        except DeviceConnectionError as error:
            raise DeviceConnectionError(f"device {self.config.name}: {error}") from error

    def _attempt(self, command: str, arguments: Mapping[str, Any]) -> Any:
        self._client.request("ready", {}, START_TIMEOUT)
        told = self._ask("connect", {}, self.config.connect_timeout_s)
        if command == "connect":
            return told
        return self._ask(command, arguments, self.config.timeout_s)

    def _ask(self, command: str, arguments: Mapping[str, Any], timeout: float) -> Any:
        try:
            return self._client.request(
                command, {**arguments, "server": asdict(self._server)}, timeout
            )
        except ChildTimeoutError as error:
            raise DeviceConnectionError(
                f"{self._server} did not answer to {command!r} within {timeout:g} s: it hangs, or "
                "is busy"
            ) from error

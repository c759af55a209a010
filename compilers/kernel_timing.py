"""Time the kernel calls of a library one by one, in the running child process.

One inference is recorded: the Relax VM hands every call to an instrument first, which copies the
tensors. Then each kernel is called on its copies many times, in a loop outside Python, interleaved
with the other kernels and with the whole inference.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compilers.errors import MeasurementError
from compilers.measurement import (
    Measurement,
    MeasurementConfig,
    Sampler,
    measure_samplers,
    timed,
)
from compilers.runtime import Model

_STATUS = Path("/proc/self/status")
_ALLOCATION = "vm.builtin.alloc_storage"


@dataclass(frozen=True, slots=True)
class CallTiming:
    """One kernel call of an inference.

    Attributes:
        symbol: The compiled function.
        input_shape: Of its first tensor.
        output_shape: Of the tensor that it writes.
        bytes: Size of all tensors that it reads and writes, constants included.
        measurement: Its latency, called again and again on the same tensors.
    """

    symbol: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    bytes: int
    measurement: Measurement


@dataclass(frozen=True, slots=True)
class InferenceTiming:
    """One inference and its kernel calls, measured in one session.

    Attributes:
        calls: In the order of execution.
        measurement: Latency of the whole inference.
        weight_bytes: Size of all constants as packed for the kernels.
        workspace_bytes: Memory for activations, as planned at compile time.
        peak_rss_bytes: Largest resident memory of the process that ran one inference, with Python
            and the TVM runtime; None where Linux does not tell.
    """

    calls: tuple[CallTiming, ...]
    measurement: Measurement
    weight_bytes: int
    workspace_bytes: int
    peak_rss_bytes: int | None

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` turns back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> InferenceTiming:
        """The timing that `to_json` described."""
        calls = tuple(
            CallTiming(
                symbol=call["symbol"],
                input_shape=tuple(call["input_shape"]),
                output_shape=tuple(call["output_shape"]),
                bytes=call["bytes"],
                measurement=Measurement.from_json(call["measurement"]),
            )
            for call in data["calls"]
        )
        measurement = Measurement.from_json(data["measurement"])
        return cls(**{**data, "calls": calls, "measurement": measurement})


def time_inference(
    library: Path,
    x: NDArray[Any],
    symbols: Sequence[str],
    config: MeasurementConfig,
) -> InferenceTiming:
    """Measure an inference and each of its kernel calls.

    Args:
        library: The shared library of a build or bundle.
        x: Input of one inference, [1, C, H, W], in the element type that the library takes.
        symbols: The kernels that the library is said to call, in order.
        config: How long to measure, with a warm cache.

    Raises:
        MeasurementError: The library calls other kernels, or `config` asks for a cold cache.
        BundleRuntimeError: It cannot be loaded, or refuses the input.
    """
    if config.cache != "warm":
        raise MeasurementError(f"kernels are measured with a warm cache, not a {config.cache} one")
    load = partial(Model, library, str(x.dtype))
    model = load()
    model(x)
    peak = _peak_rss()
    recording = _record(load(), x, frozenset(symbols))
    called = [symbol for symbol, _ in recording.calls]
    if called != list(symbols):
        raise MeasurementError(
            f"{library} calls {called}, but its record says {list(symbols)}; build it again"
        )
    twin = load()
    samplers = [_whole(model, x)]
    samplers += [_single(model, symbol, tensors) for symbol, tensors in recording.calls]
    whole, *single = measure_samplers(samplers, config, _whole(twin, x))
    calls = tuple(
        CallTiming(
            symbol=symbol,
            input_shape=tuple(tensors[0].shape),
            output_shape=tuple(tensors[-1].shape),
            bytes=sum(map(_nbytes, tensors)),
            measurement=measurement,
        )
        for (symbol, tensors), measurement in zip(recording.calls, single, strict=True)
    )
    return InferenceTiming(
        calls=calls,
        measurement=whole,
        weight_bytes=sum(recording.constants.values()),
        workspace_bytes=recording.workspace,
        peak_rss_bytes=peak,
    )


@dataclass(slots=True)
class _Recording:
    """What one inference does, as the VM's instrument.

    Attributes:
        symbols: Calls to record.
        calls: Symbol and copies of the tensors of each call: inputs, constants, output.
        constants: Address of every constant -> its size, bytes.
        workspace: Bytes allocated for activations.
    """

    symbols: frozenset[str]
    calls: list[tuple[str, list[Any]]] = field(default_factory=list)
    constants: dict[int, int] = field(default_factory=dict)
    workspace: int = 0
    _activations: set[int] = field(default_factory=set)

    def __call__(
        self, _function: Any, name: str, before: bool, _result: Any, *arguments: Any
    ) -> int:
        """See `VirtualMachine.set_instrument`; 0 lets the call go on."""
        if before and name == _ALLOCATION:
            _, shape, _, dtype, *_ = arguments
            self.workspace += prod(shape) * np.dtype(str(dtype)).itemsize
        elif before and name in self.symbols:
            self._record(str(name), arguments)
        return 0

    def _record(self, name: str, tensors: Iterable[Any]) -> None:
        import tvm

        first, *others, out = tensors
        # The first call reads the network's input; every other activation was written before.
        self._activations |= {out.data_ptr()} if self.calls else {first.data_ptr(), out.data_ptr()}
        for tensor in (first, *others):
            if tensor.data_ptr() not in self._activations:
                self.constants[tensor.data_ptr()] = _nbytes(tensor)
        # Copies: the memory plan lets later calls write where this one's inputs are.
        copies = [tvm.runtime.tensor(tensor.numpy()) for tensor in (first, *others, out)]
        self.calls.append((name, copies))


def _record(model: Model, x: NDArray[Any], symbols: frozenset[str]) -> _Recording:
    recording = _Recording(symbols)
    model.machine.set_instrument(recording)
    model.main(model.tensor(x))
    return recording


def _nbytes(tensor: Any) -> int:
    return prod(tensor.shape) * np.dtype(str(tensor.dtype)).itemsize


def _whole(model: Model, x: NDArray[Any]) -> Sampler:
    return timed(partial(model.main, model.tensor(x)))


def _single(model: Model, symbol: str, tensors: Sequence[Any]) -> Sampler:
    import tvm

    module = next(m for m in model.module.imports if m.implements_function(symbol))

    def sample(batch: int) -> float:
        # Its loop runs in C++: a call from Python would cost as much as a small kernel.
        evaluator = module.time_evaluator(symbol, tvm.cpu(), number=batch)
        return float(evaluator(*tensors).results[0]) * 1e3

    return sample


def _peak_rss() -> int | None:
    """Bytes. Not `getrusage`, whose peak a child inherits from its parent."""
    for line in _STATUS.read_text().splitlines() if _STATUS.exists() else []:
        name, _, value = line.partition(":")
        if name == "VmHWM":
            return int(value.split()[0]) * 1024
    return None

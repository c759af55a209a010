"""A compiled subnet on a device that has a clock of its own: behind a server, or on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class TimedModel:
    """A compiled subnet in TVM's virtual machine, timed by its `time_evaluator`.

    Args:
        module: The loaded library.
        device: The `tvm.runtime.Device` that executes it.
        output_shape: Of the result of one input, [1, ...].

    Raises:
        AttributeError: The library is no compiled subnet.
    """

    def __init__(self, module: Any, device: Any, output_shape: Sequence[int]) -> None:
        from tvm.runtime.vm import VirtualMachine

        self._machine = VirtualMachine(module, device)
        self._device = device
        self._output_shape = output_shape
        self._timers: dict[int, Any] = {}

    def __call__(self, x: NDArray[Any]) -> NDArray[np.float32]:
        """Results [n, ...] float32 of inputs [n, ...] in the library's element type, n >= 1."""
        rows = []
        for i in range(len(x)):
            self._machine.set_input("main", self._tensor(x[i : i + 1]))
            self._machine.invoke_stateful("main")
            rows.append(self._machine.get_outputs("main").numpy().reshape(self._output_shape))
        return np.concatenate(rows)

    def bind(self, x: NDArray[Any]) -> None:
        """Fix the input [1, ...] of the calls that `sample` makes."""
        self._machine.save_function("main", "timed", self._tensor(x), include_return=False)

    def sample(self, calls: int) -> float:
        """Mean milliseconds of a call over a batch of so many."""
        if calls not in self._timers:
            self._timers[calls] = self._machine.time_evaluator("timed", self._device, number=calls)
        return float(self._timers[calls]().mean) * 1e3

    def _tensor(self, x: NDArray[Any]) -> Any:
        import tvm

        return tvm.runtime.tensor(np.ascontiguousarray(x), self._device)

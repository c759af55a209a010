"""From an exported program to an operator graph.

Every node is matched by its operator and its arguments, not by where it stands; what matches
nothing is an error that names it. What depends on no input is computed here, by PyTorch.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from compilers.errors import UnsupportedOperatorError
from compilers.graph import Graph, Op, OpKind

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node

_CHECKS = ("_assert_tensor_metadata.default", "_assert_scalar.default")

Value: TypeAlias = "str | torch.Tensor | list[Any]"
"""Of a node: the name of a value of the graph, a constant, or a list of these."""

Translator: TypeAlias = "Callable[[Lifter, dict[str, Any]], Value]"
"""Adds the operators of a node to the graph, given its arguments by name."""


def lift(program: ExportedProgram, translators: Mapping[str, Translator]) -> Graph:
    """The operator graph of an exported program with one input and one result.

    Args:
        program: What torch.export made of a module.
        translators: By the names that it gives to operators, without their namespace.

    Raises:
        UnsupportedOperatorError: A node matches no operator of the graph.
    """
    return Lifter(program, translators).graph()


class Lifter:
    """One pass over a program; translators use it to add operators for its `node`."""

    def __init__(self, program: ExportedProgram, translators: Mapping[str, Translator]) -> None:
        self.program = program
        self.translators = translators
        signature = program.graph_signature
        self.parameters = {
            **signature.inputs_to_parameters,
            **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }
        self.user_inputs = signature.user_inputs
        self.values: dict[str, Value] = {}
        self.constants: dict[str, NDArray[Any]] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.ops: list[Op] = []
        self.node: Node

    def graph(self) -> Graph:
        """See `lift`."""
        tensors = {**self.program.state_dict, **self.program.constants}
        if len(self.user_inputs) != 1:
            raise UnsupportedOperatorError(
                f"the module takes {len(self.user_inputs)} inputs; it must take one tensor"
            )
        output: Any = None
        dtype: Any = None
        for node in self.program.graph.nodes:
            self.node = node
            if node.op == "placeholder":
                if node.name in self.parameters:
                    self.values[node.name] = tensors[self.parameters[node.name]].detach()
                else:
                    self.values[node.name] = node.name
                    self.shapes[node.name] = self.shape()
                    dtype = node.meta["val"].dtype
            elif node.op == "call_function":
                with torch.no_grad():
                    self._call(node)
            elif node.op == "output":
                output = [self.values[result.name] for result in node.args[0]]
        if len(output) != 1 or not isinstance(output[0], str):
            raise UnsupportedOperatorError(
                f"the module returns {len(output)} results; it must return one tensor that depends "
                "on the input"
            )
        return Graph(
            self.user_inputs[0],
            self.shapes[self.user_inputs[0]],
            tuple(self.ops),
            output[0],
            str(dtype).removeprefix("torch."),
            self.constants,
        )

    def _call(self, node: Node) -> None:
        name = op_name(node)
        if node.target is operator.getitem:
            source, place = node.args
            self.values[node.name] = self.values[source.name][place]  # type: ignore[union-attr,index]
            return
        if name in _CHECKS:
            return
        if all(not _depends(self.values[n.name]) for n in node.all_input_nodes):
            args, kwargs = torch.fx.node.map_arg(
                (node.args, node.kwargs), lambda n: self.values[n.name]
            )
            result = node.target(*args, **kwargs)  # type: ignore[operator]
            self.values[node.name] = list(result) if isinstance(result, tuple) else result
            return
        translator = self.translators.get(name)
        if translator is None:
            raise UnsupportedOperatorError(
                f"no kernel template for operator {node.target} (node {node.name}, module "
                f"{self._site()!r}). Supported: {', '.join(sorted(self.translators))}."
            )
        self.values[node.name] = translator(self, self._arguments(node))

    def _arguments(self, node: Node) -> dict[str, Any]:
        """The node's arguments by the names in its operator's schema, defaults included."""
        schema = node.target._schema.arguments  # type: ignore[union-attr]
        given = dict(zip((a.name for a in schema), node.args, strict=False))
        given.update(node.kwargs)
        found = {a.name: given.get(a.name, a.default_value) for a in schema}
        mapped: dict[str, Any] = torch.fx.node.map_arg(found, lambda n: self.values[n.name])
        return mapped

    def _site(self) -> str:
        """Where the node came from: the owner of its weight, else its module, else its name."""
        for argument in self.node.all_input_nodes:
            target = self.parameters.get(argument.name, "")
            if target.endswith(".weight"):
                return target.removesuffix(".weight")
        stack = list((self.node.meta.get("nn_module_stack") or {}).values())
        return (str(stack[-1][0]) if stack else "") or self.node.name

    def fail(self, what: str) -> UnsupportedOperatorError:
        """The error for what has no operator in the graph; names the node and its module."""
        return UnsupportedOperatorError(
            f"no kernel template for {what} (node {self.node.name}, module {self._site()!r})"
        )

    def shape(self) -> tuple[int, ...]:
        """Of the node's result."""
        return tuple(map(int, self.node.meta["val"].shape))

    def emit(
        self,
        kind: OpKind,
        inputs: list[Any],
        params: dict[str, Any] | None = None,
        *,
        name: str | None = None,
        shape: tuple[int, ...] | None = None,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        **attributes: Any,
    ) -> str:
        """Add an operator.

        Args:
            kind: What it computes.
            inputs: Values, constants and numbers that it reads.
            params: Tensors by role, see `OpKind`.
            name: Of its result; the node's by default.
            shape: Of its result; the node's by default.
            stride: See `Op`; likewise `padding`, `groups`.
            attributes: Numbers by name, see `OpKind`.

        Returns:
            The name of its result.

        Raises:
            UnsupportedOperatorError: A parameter depends on the input, or the result has no axes.
        """
        name = name or self.node.name
        shape = self.shape() if shape is None else shape
        if not shape:
            raise self.fail(f"{kind} to a number without axes")
        arrays: dict[str, NDArray[Any]] = {}
        for role, value in (params or {}).items():
            if not isinstance(value, torch.Tensor):
                raise self.fail(f"{kind} whose {role} is not a constant")
            arrays[role] = value.detach().numpy()
        op = Op(
            name=name,
            kind=kind,
            inputs=tuple(self._operand(value) for value in inputs),
            shape=shape,
            site=self._site(),
            params=arrays,
            stride=stride,
            padding=padding,
            groups=groups,
            attributes=attributes,
        )
        self.ops.append(op)
        self.shapes[name] = op.shape
        return name

    def _operand(self, value: Any) -> str:
        if isinstance(value, str):
            return value
        array = (
            value.detach().numpy()
            if isinstance(value, torch.Tensor)
            else np.array(value, np.float32)
        )
        name = f"{self.node.name}.constant{len(self.constants)}"
        self.constants[name] = array
        return name

    def known_shape(self, value: Any) -> tuple[int, ...]:
        """Shape of an operand."""
        if isinstance(value, torch.Tensor):
            return tuple(value.shape)
        return self.shapes[value]


def op_name(node: Node) -> str:
    """The operator that a node calls, without its namespace."""
    return str(node.target).split(".", 1)[-1]


def _depends(value: Value) -> bool:
    """Whether a value depends on the network's input."""
    if isinstance(value, list):
        return any(_depends(part) for part in value)
    return isinstance(value, str)

"""From an imported Relax function to an operator graph.

Every binding is matched by what it computes, not by where it stands; a binding that matches
nothing is an error that names it.
"""

from __future__ import annotations

from collections import Counter
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compilers.errors import UnsupportedOperatorError
from compilers.graph import Graph, Op, OpKind

EXTERN_PREFIX = "netcarve."
"""Prefix of the external functions that stand for operators without a Relax twin."""

_ROLES: dict[OpKind, tuple[str, ...]] = {
    OpKind.QUANTIZE: ("scale", "zero_point"),
    OpKind.DEQUANTIZE: ("scale", "zero_point"),
    OpKind.QCONV: ("input_zero_point", "weight", "bias", "scale"),
    OpKind.QLINEAR: ("input_zero_point", "weight", "bias", "scale"),
    OpKind.WEIGHT_ONLY_LINEAR: ("weight", "bias", "scale"),
    OpKind.HARDSWISH: (),
    OpKind.HARDSIGMOID: (),
}

_NUMBERS: dict[OpKind, tuple[str, ...]] = {
    OpKind.QCONV: ("stride", "padding", "groups", "weight_bits"),
    OpKind.QLINEAR: ("weight_bits",),
    OpKind.WEIGHT_ONLY_LINEAR: ("group_size", "weight_bits"),
}


class Lifter:
    """Reads one imported Relax function.

    Args:
        main: The function; its weights are bound constants.
        sites: Variable name -> module path, for the variable that ends each node's translation.
    """

    def __init__(self, main: Any, sites: dict[str, str]) -> None:
        self.bindings = [b for block in main.body.blocks for b in block.bindings]
        self.input = main.params[0].name
        self.input_shape = _shape(main.params[0])
        self.output = main.body.body.name
        self.constants: dict[str, NDArray[Any]] = {}
        self.alias: dict[str, str] = {}
        self.ops: dict[str, Op] = {}
        self.uses: Counter[str] = Counter()
        self.sites: dict[str, str] = {}
        pending: list[str] = []
        for binding in self.bindings:
            pending.append(binding.var.name)
            if (site := sites.get(pending[-1])) is not None:
                self.sites.update(dict.fromkeys(pending, site))
                pending.clear()
            for argument in _arguments(binding.value):
                if _is_var(argument):
                    self.uses[argument.name] += 1

    def graph(self) -> Graph:
        """The operator graph.

        Raises:
            UnsupportedOperatorError: A binding matches no operator of the graph.
        """
        for binding in self.bindings:
            self._binding(binding.var, binding.value)
        output = self._resolve(self.output)
        return Graph(self.input, self.input_shape, tuple(self.ops.values()), output)

    def _resolve(self, name: str) -> str:
        while name in self.alias:
            name = self.alias[name]
        return name

    def _constant(self, expression: Any) -> NDArray[Any] | None:
        if _is_var(expression):
            return self.constants.get(expression.name)
        value: Any = getattr(expression, "value", None)
        return np.asarray(value.numpy()) if hasattr(value, "numpy") else None

    def _fail(self, var: Any, what: str) -> UnsupportedOperatorError:
        name = var.name
        return UnsupportedOperatorError(
            f"no kernel template for {what} (node {name}, module {self.sites.get(name, '?')!r})"
        )

    def _binding(self, var: Any, value: Any) -> None:
        if _is_var(value):
            self.alias[var.name] = value.name
            return
        operator = value.op.name if hasattr(value.op, "name") else str(value.op)
        args = list(value.args)
        constants = [self._constant(argument) for argument in args]
        if operator in ("relax.reshape", "relax.permute_dims") and constants[0] is not None:
            folded = (
                constants[0].reshape(_shape(var)) if operator == "relax.reshape" else constants[0].T
            )
            self.constants[var.name] = folded
        elif operator == "relax.nn.conv2d":
            self._convolution(var, value, constants[1])
        elif operator == "relax.matmul":
            if constants[1] is None or constants[1].ndim != 2 or len(_shape(var)) != 2:
                raise self._fail(var, "a matmul of two activations")
            weight = np.ascontiguousarray(constants[1].T)
            self._emit(var, OpKind.LINEAR, args[:1], {"weight": weight, "bias": _zeros(weight)})
        elif operator == "relax.add":
            self._add(var, args, constants)
        elif operator == "relax.multiply":
            self._multiply(var, args)
        elif operator == "relax.nn.relu":
            self._emit(var, OpKind.RELU, args)
        elif operator in ("relax.mean", "relax.nn.adaptive_avg_pool2d"):
            shape = _shape(args[0])
            if len(shape) != 4 or prod(_shape(var)) != shape[1]:
                raise self._fail(var, f"{operator} from {shape} to {_shape(var)}")
            self._emit(var, OpKind.MEAN, args)
        elif operator in ("relax.reshape", "relax.expand_dims", "relax.squeeze"):
            before, after = _shape(args[0]), _shape(var)
            if prod(before) != max(before) or prod(after) != max(after):
                raise self._fail(var, f"{operator} from {before} to {after}")
            self._emit(var, OpKind.RESHAPE, args[:1])
        elif operator == "relax.call_dps_packed":
            self._extern(var, args)
        else:
            raise self._fail(var, f"operator {operator}")

    def _emit(
        self,
        var: Any,
        kind: OpKind,
        inputs: list[Any],
        params: dict[str, NDArray[Any]] | None = None,
        **numbers: int,
    ) -> None:
        name = var.name
        for argument in inputs:
            if not _is_var(argument) or argument.name in self.constants:
                raise self._fail(var, f"{kind} with a constant operand")
        self.ops[name] = Op(
            name=name,
            kind=kind,
            inputs=tuple(self._resolve(argument.name) for argument in inputs),
            shape=_shape(var),
            site=self.sites.get(name, name),
            params=params or {},
            **numbers,
        )

    def _convolution(self, var: Any, value: Any, weight: NDArray[Any] | None) -> None:
        attrs = value.attrs
        stride, padding = {*map(int, attrs.strides)}, {*map(int, attrs.padding)}
        if weight is None or len(stride) > 1 or len(padding) > 1 or {*attrs.dilation} != {1}:
            raise self._fail(var, "a convolution that is dilated, uneven or has no fixed weight")
        self._emit(
            var,
            OpKind.CONV,
            [value.args[0]],
            {"weight": weight, "bias": _zeros(weight)},
            stride=stride.pop(),
            padding=padding.pop(),
            groups=int(attrs.groups),
        )

    def _add(self, var: Any, args: list[Any], constants: list[NDArray[Any] | None]) -> None:
        bias = next((constant for constant in constants if constant is not None), None)
        if bias is None:
            if _shape(args[0]) != _shape(args[1]):
                raise self._fail(var, "an addition that broadcasts")
            self._emit(var, OpKind.ADD, args)
            return
        source = next(argument for argument in args if _is_var(argument))
        op = self.ops.get(source.name)
        channels = _shape(var)[1]
        if (
            op is None
            or op.kind not in (OpKind.CONV, OpKind.LINEAR)
            or self.uses[op.name] > 1
            or bias.size != channels
            or (len(op.shape) == 4 and bias.shape != (1, channels, 1, 1))
        ):
            raise self._fail(var, "the addition of a constant that is not a bias")
        self.ops[op.name] = Op(
            name=op.name,
            kind=op.kind,
            inputs=op.inputs,
            shape=op.shape,
            site=op.site,
            params={**op.params, "bias": bias.reshape(-1).astype(np.float32)},
            stride=op.stride,
            padding=op.padding,
            groups=op.groups,
        )
        self.alias[var.name] = op.name

    def _multiply(self, var: Any, args: list[Any]) -> None:
        """`x * s` in either order; the factor per channel comes second."""
        shape = _shape(var)
        ordered = sorted(args, key=lambda argument: -prod(_shape(argument)))
        if len(shape) != 4 or _shape(ordered[1]) != (1, shape[1], 1, 1):
            raise self._fail(var, "a multiplication that is not by one factor per channel")
        self._emit(var, OpKind.MUL, ordered)

    def _extern(self, var: Any, args: list[Any]) -> None:
        kind = OpKind(args[0].global_symbol.removeprefix(EXTERN_PREFIX))
        fields = list(args[1].fields)
        if kind is OpKind.UNPACK:
            self.constants[var.name] = self._unpacked(var, fields)
            return
        roles = _ROLES[kind]
        params: dict[str, NDArray[Any]] = {}
        for role, expression in zip(roles, fields[1:], strict=False):
            constant = self._constant(expression)
            if constant is None:
                raise self._fail(var, f"{kind} whose {role} is not a constant")
            params[role] = constant
        found = [self._constant(expression) for expression in fields[1 + len(roles) :]]
        numbers = [int(constant) for constant in found if constant is not None]
        names = _NUMBERS.get(kind, ())
        self._emit(var, kind, fields[:1], params, **dict(zip(names, numbers, strict=False)))

    def _unpacked(self, var: Any, fields: list[Any]) -> NDArray[np.int8]:
        import torch

        from supernet.packing import unpack_codes

        packed, bits, shape = map(self._constant, fields)
        if packed is None or bits is None or shape is None:
            raise self._fail(var, "weights that are not constant")
        codes = unpack_codes(torch.from_numpy(packed), int(bits), tuple(map(int, shape)))
        return np.asarray(codes.numpy())


def _is_var(expression: Any) -> bool:
    from tvm import relax

    return isinstance(expression, relax.Var)


def _arguments(value: Any) -> list[Any]:
    """All operands of a binding, those inside the tuple of an external call included."""
    flat: list[Any] = []
    for argument in getattr(value, "args", [value]):
        flat.extend(getattr(argument, "fields", [argument]))
    return flat


def _shape(expression: Any) -> tuple[int, ...]:
    return tuple(int(extent) for extent in expression.ty.shape)


def _zeros(weight: NDArray[Any]) -> NDArray[np.float32]:
    return np.zeros(weight.shape[0], np.float32)

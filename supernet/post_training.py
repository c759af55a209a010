"""Post-training quantisation of a plain module to W8A8.

The module is captured by `torch.export`; its convolutions and linear layers become the operators
of `integer_ops` (Jacob et al. 2018; Nagel et al. 2021, "A White Paper on Neural Network
Quantization"): BatchNorm is folded, weights are s8 with one scale per output channel, activations
u8 with one scale and zero point per tensor, calibrated on samples.

A tensor is quantised once for all that read it. Operators without an integer form (additions,
activations, pooling, normalisation, attention) read the dequantised values, as in an extracted
subnet, so that a compiler need not keep a second, float copy.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from spaces.quant_scheme import S8_WEIGHT, U8_ACTIVATION
from supernet import integer_ops  # noqa: F401 - registers the operators
from supernet.errors import SupernetConfigError
from supernet.folding import fold_integer
from supernet.quantizers import PerFormQuantizer

_CALIBRATION_VALUES = 1 << 16
"""Values of one tensor and sample that calibration looks at, beside the extremes."""

_ATEN = torch.ops.aten
_CONV, _LINEAR = _ATEN.conv2d.default, _ATEN.linear.default
# A map is much larger than what pooling makes of it: worth storing as u8.
_POOLING = {_ATEN.max_pool2d.default, _ATEN.adaptive_avg_pool2d.default, _ATEN.mean.dim}
# Their results have the values, and so the constants, of their input.
_SAME_VALUES = {
    _ATEN.max_pool2d.default, _ATEN.view.default, _ATEN.reshape.default,
    _ATEN.flatten.using_ints, _ATEN.transpose.int, _ATEN.permute.default,
}  # fmt: skip


@torch.no_grad()
def quantize_post_training(
    module: nn.Module, samples: Sequence[Tensor], keep_float: Collection[str] = ()
) -> fx.GraphModule:
    """The integer form of `module`, for inputs of the shape of the samples.

    Dense and depthwise `Conv2d` and `Linear` layers become integer, except linear layers that read
    the network's input, convolutions to a single pixel (squeeze-and-excite, which stays float
    inside) and those in `keep_float`.

    Args:
        module: One tensor in, one tensor out; `torch.export.export` must accept it.
        samples: Inputs of one shape, which activations are calibrated on.
        keep_float: Paths of layers that stay float32.

    Returns:
        A module in evaluation mode; `torch.export` keeps its layers as `netcarve::` nodes, with
        their tensors under the paths of the layers.

    Raises:
        SupernetConfigError: There is no sample, no layer to quantise, a path in `keep_float` that
            is no layer, or a view or an input that is changed in place.
    """
    if not samples:
        raise SupernetConfigError("post-training quantisation needs at least one sample")
    captured = torch.export.export(module.eval(), (samples[0],)).module(check_guards=False)
    assert isinstance(captured, fx.GraphModule)
    network = _Network(captured)
    network.make_functional()
    network.fold_batch_norms()
    layers = network.layers(keep_float)
    network.quantize(network.calibrate(network.sources(layers), samples), layers)
    for layer in layers:
        network.replace(layer)
    return network.module()


class _Network:
    """A captured graph and the tensors that its `get_attr` nodes name, while they are changed."""

    def __init__(self, captured: fx.GraphModule) -> None:
        self.graph = captured.graph
        self.tensors: dict[str, Tensor] = {
            str(node.target): _attribute(captured, str(node.target))
            for node in self.graph.find_nodes(op="get_attr")
        }

    def module(self) -> fx.GraphModule:
        """A new module of what the graph uses."""
        root: dict[str, Any] = {}
        for node in self.graph.find_nodes(op="get_attr"):
            if node.users:
                root[str(node.target)] = self.tensors[str(node.target)]
            else:
                self.graph.erase_node(node)
        module = fx.GraphModule(root, self.graph)
        module.graph.lint()
        return module.eval()

    def make_functional(self) -> None:
        """Replace operators that work in place; their later readers read their result already.

        Raises:
            SupernetConfigError: One changes its tensor through a view, or an input.
        """
        for node in self.graph.nodes:
            target = node.target
            if not isinstance(target, torch._ops.OpOverload) or not target._schema.is_mutable:
                continue
            functional = getattr(
                _ATEN, target._schema.name.removeprefix("aten::").rstrip("_"), None
            )
            if functional is None or getattr(_input(node).target, "is_view", True):
                raise SupernetConfigError(f"{node.name} changes a view or an input in place")
            node.target = getattr(functional, target._overloadname)

    def fold_batch_norms(self) -> None:
        """Merge every BatchNorm that alone reads a convolution into it."""
        for norm in self.graph.find_nodes(op="call_function", target=_ATEN.batch_norm.default):
            layer = _input(norm)
            if layer.target is not _CONV or len(layer.users) > 1:
                continue
            gain, shift, mean, variance = (self._tensor(operand) for operand in norm.args[1:5])
            weight, bias = fuse_conv_bn_weights(
                *self._weights(layer), mean, variance, norm.args[7], gain, shift
            )
            operands = self._constants(layer, {"weight": weight, "bias": bias})
            layer.args = (_input(layer), *operands, *layer.args[3:])
            norm.replace_all_uses_with(layer)
            self.graph.erase_node(norm)

    def layers(self, keep_float: Collection[str]) -> list[fx.Node]:
        """The nodes that become integer."""
        found = {
            node: _site(node)
            for node in self.graph.nodes
            if node.target in (_CONV, _LINEAR) and node.args[1].op == "get_attr"
        }
        if unknown := sorted(set(keep_float) - set(found.values())):
            known = ", ".join(found.values())
            raise SupernetConfigError(f"keep_float: {unknown[0]!r} is no layer; known: {known}")
        layers = [
            node
            for node, site in found.items()
            if site not in keep_float
            and (_input(node).op != "placeholder" or node.target is _CONV)
            and (node.target is _LINEAR or _is_integer_convolution(node))
        ]
        if not layers:
            raise SupernetConfigError("the module has no layer that could be quantised")
        return layers

    def sources(self, layers: Sequence[fx.Node]) -> list[fx.Node]:
        """The tensors to quantise, in the order of execution: what layers and pooling read."""
        pools = [
            node
            for node in self.graph.nodes
            if node.target in _POOLING
            and len(_shape(_input(node))) == 4
            and _input(node).op != "placeholder"
        ]
        read = {_input(node) for node in (*layers, *pools)}
        return [node for node in self.graph.nodes if node in read]

    def calibrate(
        self, sources: Sequence[fx.Node], samples: Sequence[Tensor]
    ) -> dict[fx.Node, tuple[Tensor, Tensor]]:
        """Scale float32 [] and zero point int32 [] of every source."""
        observer = _Observer(self.module(), self.graph, sources)
        for sample in samples:
            observer.run(sample)
        constants: dict[fx.Node, tuple[Tensor, Tensor]] = {}
        for source in sources:
            origin = _input(source) if source.target in _SAME_VALUES else source
            if origin in constants:
                constants[source] = constants[origin]
                continue
            quantizer = PerFormQuantizer([U8_ACTIVATION], None)
            values = torch.cat(observer.values[source])
            quantizer.calibrate(values, U8_ACTIVATION)
            scale, zero_point = quantizer.parameters_for(values, U8_ACTIVATION)
            constants[source] = scale.clone(), torch.round(zero_point).to(torch.int32)
        return constants

    def quantize(
        self, constants: Mapping[fx.Node, tuple[Tensor, Tensor]], layers: Sequence[fx.Node]
    ) -> None:
        """Let `layers` read u8 and all other readers of calibrated tensors dequantised values."""
        for source, values in constants.items():
            readers = list(source.users)
            with self.graph.inserting_before(source.next):
                scale, zero_point = (
                    self._constant(f"{source.name}_quantizer.{role}", value)
                    for role, value in zip(("scale", "zero_point"), values, strict=True)
                )
                x = self._operator("quantize", source, scale, zero_point)
                dequantized = self._operator("dequantize", x, scale, zero_point)
            for reader in readers:
                if reader in layers:
                    reader.replace_input_with(source, x)
                elif reader.op != "output":
                    reader.replace_input_with(source, dequantized)

    def replace(self, layer: fx.Node) -> None:
        """Put the integer operator of `layer`, whose input is u8, in its place."""
        x = _input(layer)
        _, input_scale, zero_point = x.args
        weight, bias = self._weights(layer)
        quantizer = PerFormQuantizer([S8_WEIGHT], tuple(weight.shape))
        quantizer.calibrate(weight, S8_WEIGHT)
        integers = fold_integer(
            quantizer.export_int(weight, S8_WEIGHT),
            self._tensor(input_scale),
            weight.new_ones(len(weight)),
            weight.new_zeros(len(weight)) if bias is None else bias,
        )
        with self.graph.inserting_before(layer):
            operands = (x, zero_point, *self._constants(layer, integers))
            if layer.target is _LINEAR:
                new = self._operator("qlinear", *operands)
            else:
                stride, padding, _, groups = _geometry(layer)
                new = self._operator("qconv2d", *operands, stride[0], padding[0], groups)
        layer.replace_all_uses_with(new)
        self.graph.erase_node(layer)

    def _operator(self, name: str, *arguments: Any) -> fx.Node:
        """A call of a `netcarve::` operator at the current place."""
        return self.graph.call_function(getattr(torch.ops.netcarve, name).default, arguments)

    def _constants(self, layer: fx.Node, tensors: Mapping[str, Tensor]) -> list[fx.Node]:
        """Tensors of a layer by role, under its path; under a new one if it shares its weight."""
        weight = layer.args[1]
        assert isinstance(weight, fx.Node)
        site = _site(layer) + (f".{layer.name}" if len(weight.users) > 1 else "")
        with self.graph.inserting_before(layer):
            return [self._constant(f"{site}.{role}", value) for role, value in tensors.items()]

    def _constant(self, name: str, value: Tensor) -> fx.Node:
        self.tensors[name] = value.detach()
        node = self.graph.create_node("get_attr", name)
        node.meta["val"] = value
        return node

    def _tensor(self, operand: Any) -> Any:
        """The tensor of a `get_attr` node, or None."""
        return None if operand is None else self.tensors[str(operand.target)]

    def _weights(self, layer: fx.Node) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of a convolution or linear layer."""
        return self._tensor(layer.args[1]), self._tensor([*layer.args, None][2])


class _Observer(fx.Interpreter):
    """Runs a graph and collects values of some nodes: the extremes, and some of the rest."""

    def __init__(self, module: nn.Module, graph: fx.Graph, nodes: Sequence[fx.Node]) -> None:
        super().__init__(module, graph=graph)
        self.values: dict[fx.Node, list[Tensor]] = {node: [] for node in nodes}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n in self.values:
            flat = value.flatten()
            step = -(-len(flat) // _CALIBRATION_VALUES)
            self.values[n] += [flat[::step], flat.min()[None], flat.max()[None]]
        return value


def _input(node: fx.Node) -> fx.Node:
    source = node.args[0]
    assert isinstance(source, fx.Node)
    return source


def _site(layer: fx.Node) -> str:
    """Path of the module that owns a layer's weight."""
    weight = layer.args[1]
    assert isinstance(weight, fx.Node)
    return str(weight.target).removesuffix(".weight")


def _shape(node: fx.Node) -> tuple[int, ...]:
    return tuple(map(int, node.meta["val"].shape))


def _geometry(layer: fx.Node) -> tuple[list[int], list[int], list[int], int]:
    """Stride, padding, dilation and groups of a convolution."""
    given: list[Any] = list(layer.args[3:])
    stride, padding, dilation, groups = given + [[1, 1], [0, 0], [1, 1], 1][len(given) :]
    return stride, padding, dilation, groups


def _is_integer_convolution(layer: fx.Node) -> bool:
    """Whether `integer_ops` has the operator, and it is no part of squeeze-and-excite."""
    assert isinstance(layer.args[1], fx.Node)
    weight, out = _shape(layer.args[1]), _shape(layer)
    stride, padding, dilation, groups = _geometry(layer)
    depthwise = groups == weight[0] and weight[1] == 1
    even = len({*weight[2:]}) == len({*stride}) == len({*padding}) == 1 and {*dilation} == {1}
    return (groups == 1 or depthwise) and even and out[2:] != (1, 1)


def _attribute(module: nn.Module, path: str) -> Tensor:
    value: Any = module
    for name in path.split("."):
        value = getattr(value, name)
    assert isinstance(value, Tensor)
    return value

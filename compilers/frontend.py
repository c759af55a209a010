"""From an extracted subnet to an operator graph: torch.export, TVM's importer, Relax, `Graph`.

The importer translates plain operators into Relax operators. Quantised operators (and the two
hard activations, which it would take apart) become calls of external functions that carry their
names; nothing is ever legalised into unscheduled loops.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from compilers.errors import UnsupportedOperatorError
from compilers.graph import Graph, OpKind
from compilers.lift import EXTERN_PREFIX, Lifter

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

# The names that torch.export gives to operators, without their namespace.
_EXTERN = {
    "quantize.default": OpKind.QUANTIZE,
    "dequantize.default": OpKind.DEQUANTIZE,
    "qconv2d.default": OpKind.QCONV,
    "qlinear.default": OpKind.QLINEAR,
    "weight_only_linear.default": OpKind.WEIGHT_ONLY_LINEAR,
    "unpack.default": OpKind.UNPACK,
    "hardswish.default": OpKind.HARDSWISH,
    "hardswish_.default": OpKind.HARDSWISH,
    "hardsigmoid.default": OpKind.HARDSIGMOID,
    "hardsigmoid_.default": OpKind.HARDSIGMOID,
}
_IMPORTED = (
    "conv2d.default", "linear.default", "relu.default", "relu_.default", "add.Tensor",
    "mul.Tensor", "mean.dim", "adaptive_avg_pool2d.default", "flatten.using_ints",
    "view.default", "reshape.default", "unsqueeze.default", "squeeze.dims",
)  # fmt: skip


def trace(module: torch.nn.Module, input_shape: tuple[int, ...]) -> Graph:
    """The operator graph of `module` for a float32 input of `input_shape`, batch 1.

    Args:
        module: An extracted subnet, or any module made of the supported operators.
        input_shape: `[1, C, H, W]` or `[1, C]`.

    Raises:
        UnsupportedOperatorError: An operator, or the way it is used, has no kernel template; the
            message names the operator and its node.
    """
    import torch

    if input_shape[0] != 1:
        raise UnsupportedOperatorError(f"batch {input_shape[0]} is not supported; batch is 1")
    example = (torch.zeros(input_shape, dtype=torch.float32),)
    with torch.no_grad():
        program = torch.export.export(module.eval(), example)
    main, sites = _import(program)
    return Lifter(main, sites).graph()


def _op_name(node: torch.fx.Node) -> str:
    return str(node.target).split(".", 1)[1] if node.op == "call_function" else ""


def _site(node: torch.fx.Node, parameters: dict[str, str]) -> str:
    """Where a node came from: the owner of its weight, else its module, else its own name."""
    for argument in node.all_input_nodes:
        target = parameters.get(argument.name, "")
        if target.endswith(".weight"):
            return target.removesuffix(".weight")
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return (str(stack[-1][0]) if stack else "") or node.name


def _import(program: ExportedProgram) -> tuple[Any, dict[str, str]]:
    """Relax `main` and, for the variable that ends each node's translation, the node's site."""
    import torch
    from torch import fx
    from tvm import relax
    from tvm.relax.frontend.torch import from_exported_program

    signature = program.graph_signature
    parameters = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    for node in program.graph.nodes:
        if node.op == "call_function" and _op_name(node) not in (*_EXTERN, *_IMPORTED):
            raise UnsupportedOperatorError(
                f"no kernel template for operator {node.target} (node {node.name}, module "
                f"{_site(node, parameters)!r}). "
                f"Supported: {', '.join(sorted((*_EXTERN, *_IMPORTED)))}."
            )
    origins: dict[str, str] = {}
    dtypes = {torch.uint8: "uint8", torch.int8: "int8", torch.float32: "float32"}
    base: dict[str, Callable[[fx.Node], Any]] = {}

    def convert(node: fx.Node, importer: Any) -> Any:
        name = _op_name(node)
        if name in _EXTERN:
            args = [
                importer.env[arg] if isinstance(arg, fx.Node) else relax.const(arg, "int64")
                for arg in node.args
            ]
            value = node.meta["val"]
            out = relax.TensorType(tuple(map(int, value.shape)), dtypes[value.dtype])
            var = importer.block_builder.emit(
                relax.call_dps_packed(EXTERN_PREFIX + _EXTERN[name], args, out)
            )
        else:
            if not base:
                base.update(importer.create_convert_map())
            var = base[name](node)
        origins[var.name] = _site(node, parameters)
        return var

    module = from_exported_program(
        program,
        run_ep_decomposition=False,
        unwrap_unit_return_tuple=True,
        custom_convert_map=dict.fromkeys((*_EXTERN, *_IMPORTED), convert),
    )
    return module["main"], origins

"""The quantisations of a stored graph: each once, and where a producer's epilogue takes them."""

from __future__ import annotations

from dataclasses import replace

from compilers.graph import Op, OpKind
from compilers.kernels.base import QParams
from compilers.storage import StoredGraph


def simplify(stored: StoredGraph) -> tuple[list[Op], str]:
    """Without repeated quantisations; the maximum of quantised values instead of the quantised one.

    Quantisation is monotone, so that it may come before a maximum, where the producer's epilogue
    takes it over.
    """
    alias: dict[str, str] = {}
    known: dict[tuple[OpKind, str, QParams], str] = {}
    ops: dict[str, Op] = {}
    # Equal quantisations of one value are one reader.
    readers: dict[str, set[object]] = {}
    for op in stored.ops:
        reader = (op.kind, qparams_of(op)) if op.kind is OpKind.QUANTIZE else op.name
        for name in op.inputs:
            readers.setdefault(name, set()).add(reader)
    for original in stored.ops:
        op = replace(original, inputs=tuple(alias.get(name, name) for name in original.inputs))
        pool = ops.get(op.inputs[0])
        movable = pool is not None and pool.kind is OpKind.MAX_POOL and len(readers[pool.name]) == 1
        if op.kind is OpKind.QUANTIZE and movable and pool is not None:
            del ops[pool.name]
            source = ops.get(pool.inputs[0])
            if (
                source is not None
                and source.kind is OpKind.DEQUANTIZE
                and (qparams_of(source) == qparams_of(op))
            ):
                first = source.inputs[0]
            else:
                shape = stored.shapes[pool.inputs[0]]
                moved = replace(op, name=f"{op.name}.first", inputs=pool.inputs, shape=shape)
                first = _known(known, ops, moved)
            known[OpKind.QUANTIZE, pool.name, qparams_of(op)] = op.name
            op = replace(pool, name=op.name, inputs=(first,))
        if op.kind in (OpKind.QUANTIZE, OpKind.DEQUANTIZE):
            name = _known(known, ops, op)
            if name != op.name:
                alias[op.name] = name
            continue
        ops[op.name] = op
    return list(ops.values()), alias.get(stored.output, stored.output)


def _known(known: dict[tuple[OpKind, str, QParams], str], ops: dict[str, Op], op: Op) -> str:
    """Name of a quantisation that is in `ops` already, or is added now."""
    name = known.setdefault((op.kind, op.inputs[0], qparams_of(op)), op.name)
    if name == op.name:
        ops[name] = op
    return name


def qparams_of(op: Op) -> QParams:
    """The constants of a quantisation or its reverse."""
    return QParams(float(op.params["scale"]), int(op.params["zero_point"]))

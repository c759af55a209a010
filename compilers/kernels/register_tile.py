"""The outer-product tile in registers that matrix products and dense convolutions share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import lcm
from typing import TypeAlias

from compilers.intrinsics import IntegerDot
from compilers.kernels.emitter import (
    Buffer,
    Emitter,
    Expr,
    Index,
    broadcast,
    load,
    reinterpret,
    splat,
)
from compilers.kernels.epilogue import Cell
from compilers.kernels.lookahead import FAR_BYTES
from compilers.kernels.nibbles import WeightArgument
from compilers.kernels.tiling import MIN_CHAINS, Block

Turn: TypeAlias = tuple[Index, int]
"""Index of a tile among those that use the same weights one after the other; how many."""


class Operands:
    """Packed weights, the accumulators' start values, and how one step multiplies.

    Attributes:
        dot: the integer dot product, or None for float32.
        weight: [blocks, steps, lanes * group].
        steps: of a whole reduction.
        start: [blocks * lanes], bias of each output channel.
        vector_lanes: lanes of a full block.
    """

    def __init__(
        self,
        em: Emitter,
        blocks: int,
        depth: int,
        vector_lanes: int,
        dot: IntegerDot | None,
        weight_bits: int = 8,
    ) -> None:
        self.em = em
        self.dot = dot
        self.vector_lanes = vector_lanes
        self.group = dot.group if dot else 1
        self.accumulator_dtype = "int32" if dot else "float32"
        self.steps = depth // self.group
        shape = (blocks, self.steps, vector_lanes * self.group)
        self.weight = WeightArgument(em, shape, dot, weight_bits)
        self.start = em.argument("start", (blocks * vector_lanes,), self.accumulator_dtype)

    @property
    def far(self) -> bool:
        """Whether the weights should be fetched ahead of their use."""
        return self.weight.bytes >= FAR_BYTES

    def activation(self, source: Buffer, index: Sequence[Index]) -> Expr:
        """The scalar that one step broadcasts: one float, or `group` integers in 32 bits.

        Args:
            source: float32, or elements of the dot product's activation type.
            index: position of the first element; consecutive channels on the last axis.
        """
        if self.dot is None:
            return self.em.let(load(source, index, 1))
        return self.em.let(reinterpret(load(source, index, self.group), "int32", 1))


class RegisterTile:
    """`rows` pixels times `blocks` vectors of accumulators, started with the bias.

    Few accumulators leave the multipliers waiting for one another; then the reduction is split
    into `chains` independent partial sums, which `cells` adds up.
    """

    def __init__(
        self,
        operands: Operands,
        rows: int,
        blocks: list[Block],
        shift: Index,
        max_chains: int,
        turn: Turn | None = None,
    ) -> None:
        """Emit the start values.

        Args:
            operands: what is multiplied.
            rows: pixels.
            blocks: neighbouring blocks of output channels.
            shift: how many blocks further the tile lies, when the group stands in a loop.
            max_chains: most partial sums that the reduction can be split into.
            turn: of the tiles that pass over these blocks, to fetch the next blocks meanwhile.
        """
        self.operands = operands
        self.turn = turn
        self.blocks = blocks
        self.shift = shift
        em = operands.em
        count = rows * len(blocks)
        self.chains = 1 if count >= MIN_CHAINS else min(-(-MIN_CHAINS // count), max_chains)
        dtype = operands.accumulator_dtype
        self.sums = [
            [[em.register(block.lanes, dtype) for block in blocks] for _ in range(rows)]
            for _ in range(self.chains)
        ]
        for chain, lines in enumerate(self.sums):
            for line in lines:
                for block, cell in zip(blocks, line, strict=True):
                    value = splat(0, block.lanes, dtype)
                    if chain == 0:
                        value = load(operands.start, [self.channel(block)], block.lanes)
                    em.store(cell, [0], value, block.lanes)

    def channel(self, block: Block) -> Index:
        """First output channel of a block."""
        return block.channel + self.shift * self.operands.vector_lanes

    def step(self, k: Index, activations: Callable[[int], Expr | None], chain: int = 0) -> None:
        """Multiply step `k` of the packed weights by one activation per row.

        Args:
            k: index of the reduction step.
            activations: row -> scalar, or None where the tap lies outside the image.
            chain: partial sum to add to.
        """
        operands, em = self.operands, self.operands.em
        weights = [
            operands.weight.load([b.index + self.shift, k, 0], b.lanes * operands.group)
            for b in self.blocks
        ]
        for row, line in enumerate(self.sums[chain]):
            value = activations(row)
            if value is None:
                continue
            for block, cell, weight in zip(self.blocks, line, weights, strict=True):
                old = load(cell, [0], block.lanes)
                wide = broadcast(value, block.lanes)
                if operands.dot is None:
                    new = old + wide * weight
                else:
                    new = operands.dot.accumulate(old, wide, weight, block.lanes)
                em.store(cell, [0], new, block.lanes)
        # A tile that is alone waits for its own weights: others would only delay them.
        if self.turn is not None and self.turn[1] > 1:
            count, steps = len(self.blocks), operands.steps
            following = (self.blocks[0].index + self.shift + count) * steps
            index, tiles = self.turn
            part = index * steps + k
            operands.weight.fetch_part(following, count * steps, part, tiles * steps)

    def reduce(self, steps: int, activations: Callable[[int, Index], Expr]) -> None:
        """All `steps`, in turns over the partial sums; `activations(row, k)`."""

        def once(k: Index, chain: int) -> None:
            self.step(k, lambda row: activations(row, k), chain)

        # Rows that share their bytes are taken in one turn.
        length = lcm(self.chains, self.operands.weight.rows_per_byte)

        def turn(k: Index) -> None:
            for i in range(length):
                once(k * length + i, i % self.chains)

        self.operands.em.loop(steps // length, turn)
        for k in range(steps // length * length, steps):
            once(k, k % self.chains)

    def cells(self, pixel: Callable[[int], Index]) -> list[Cell]:
        """Every sum with its place; `pixel` gives the output row of a row of the tile."""
        found = []
        for row in range(len(self.sums[0])):
            for i, block in enumerate(self.blocks):
                value = load(self.sums[0][row][i], [0], block.lanes)
                for chain in range(1, self.chains):
                    value = value + load(self.sums[chain][row][i], [0], block.lanes)
                channel = self.channel(block)
                value = self.operands.em.let(value)
                found.append(Cell(pixel(row), channel, block.lanes, block.valid, value, i > 0))
        return found

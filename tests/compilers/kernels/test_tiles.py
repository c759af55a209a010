"""Every template offers a few tiles that fit the registers, its own rule first."""

from __future__ import annotations

import pytest

from compilers.errors import KernelError
from compilers.kernel_library import compile_kernel
from compilers.kernels import Conv, Depthwise, Gemm, GlobalPool
from compilers.kernels.tiling import Tile, matrix_tiles
from compilers.targets import ISAS

TILED = [
    Gemm(49, 40, 72),
    Gemm(1, 160, 10, "uint8"),
    Conv(14, 14, 16, 48, 3, 1, "nhwc", "uint8"),
    Conv(20, 20, 1, 16, 3, 2, "nchw"),
    *(Depthwise(14, 14, 48, k, s, d) for k, s, d in ((5, 1, "float32"), (3, 2, "uint8"))),
]


@pytest.mark.parametrize("isa", ISAS.values(), ids=lambda isa: isa.name)
@pytest.mark.parametrize("kernel", TILED, ids=lambda kernel: kernel.kind)
def test_candidates_are_few_different_and_begin_with_the_rule(kernel, isa):
    candidates = kernel.candidates(isa)
    assert 1 <= len(candidates) == len(set(candidates)) <= 4
    plain = kernel.prim_func(isa).script()
    symbols = set()
    for tile in candidates:
        function = kernel.prim_func(isa, tile)
        symbol = kernel.symbol(isa, tile)
        assert function.attrs["global_symbol"] == symbol
        symbols.add(symbol)
        code = function.script().replace(symbol, kernel.symbol(isa))
        assert (code == plain) == (tile == candidates[0])
    assert len(symbols | {kernel.symbol(isa)}) == len(candidates) + 1


def test_matrix_tiles_fit_the_registers():
    for rows, blocks, registers in ((1, 1, 16), (7, 3, 16), (196, 10, 32), (25, 2, 32)):
        tiles = matrix_tiles(rows, blocks, registers)
        assert len({tile.vectors for tile in tiles}) == len(tiles)
        assert all(t.rows * t.vectors + t.vectors < registers for t in tiles)
        assert all(t.rows <= rows and t.vectors <= blocks for t in tiles)


def test_a_template_without_a_choice_takes_no_tile():
    kernel, isa = GlobalPool(9, 24), ISAS["avx2"]
    assert kernel.candidates(isa) == ()
    with pytest.raises(KernelError, match="global_pool"):
        compile_kernel(kernel, isa, Tile(4, 2))

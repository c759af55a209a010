from __future__ import annotations

import ast
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import supernet.extract
from spaces.cost import cost
from spaces.population import sample
from supernet.errors import CheckpointError
from supernet.extract import SPECS_FILE, WEIGHTS_FILE, Subnet, load_subnet, save_subnet


@pytest.fixture(scope="module")
def mixed(calibrated, tiny_space):
    """A subnet with float32 and integer layers, a shortcut and squeeze-and-excite."""
    values = {n: 8 for n in tiny_space.names if n.endswith("w_bits")}
    values |= {"stage1.block0.depthwise.w_bits": 32, "stage2.block1.project.w_bits": 32}
    return calibrated.extract(tiny_space.config({**tiny_space.max_config(), **values}))


def test_the_file_is_as_large_as_the_analytic_cost(calibrated, tiny_space, tmp_path):
    for i, row in enumerate(sample(tiny_space, 5, np.random.default_rng(7))):
        subnet = calibrated.extract(tiny_space.from_indices(row))
        save_subnet(subnet, tmp_path / str(i))
        content = (tmp_path / str(i) / WEIGHTS_FILE).read_bytes()
        header = int.from_bytes(content[:8], "little")
        assert len(content) - 8 - header == cost(subnet.specs).bytes


def test_a_loaded_subnet_is_the_saved_one(mixed, tmp_path):
    save_subnet(mixed, tmp_path)
    loaded = load_subnet(tmp_path)
    x = torch.rand(3, 1, mixed.resolution, mixed.resolution)
    assert torch.equal(loaded(x), mixed(x))
    assert loaded.specs == mixed.specs
    assert not any(p.requires_grad for p in loaded.parameters())


def test_export_keeps_every_integer_operator(mixed):
    x = torch.rand(1, 1, mixed.resolution, mixed.resolution)
    program = torch.export.export(mixed, (x,))
    targets = [str(node.target) for node in program.graph.nodes]
    convolutions = [s for s in mixed.specs if s.precision.weight is not None]
    assert targets.count("netcarve.qconv2d.default") == len(convolutions) - 1
    assert targets.count("netcarve.qlinear.default") == 1
    torch.testing.assert_close(program.module()(x), mixed(x), rtol=0, atol=0)


def test_integer_weights_use_the_whole_range_and_the_bias_fits(mixed):
    for name, tensor in mixed.state_dict().items():
        if name.endswith(".weight") and tensor.dtype is torch.int8:
            assert tensor.abs().max() >= 100, name
            assert tensor.min() >= -127, name
        if name.endswith(".scale"):
            assert tensor.min() > 0, name


def test_integer_weights_on_a_float_input_are_refused(mixed):
    from dataclasses import replace

    from spaces.quant_scheme import S8_WEIGHT, LayerPrecision

    bad = replace(mixed.specs[1], precision=LayerPrecision(S8_WEIGHT, None))
    with pytest.raises(ValueError, match="quantised input"):
        Subnet([mixed.specs[0], bad])


@pytest.mark.parametrize("name", [WEIGHTS_FILE, SPECS_FILE])
@pytest.mark.parametrize("damage", ["missing", "truncated", "garbage"])
def test_a_damaged_file_is_named(mixed, tmp_path, name, damage):
    save_subnet(mixed, tmp_path)
    path = tmp_path / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(content[: len(content) // 2] if damage == "truncated" else b"\x00" * 64)
    with pytest.raises(CheckpointError, match=name):
        load_subnet(tmp_path)


def test_weights_of_another_subnet_are_refused(mixed, calibrated, tiny_space, tmp_path):
    save_subnet(mixed, tmp_path)
    save_subnet(calibrated.extract(tiny_space.min_config()), tmp_path / "other")
    (tmp_path / WEIGHTS_FILE).write_bytes((tmp_path / "other" / WEIGHTS_FILE).read_bytes())
    with pytest.raises(CheckpointError, match=r"do not match|its layer has"):
        load_subnet(tmp_path)
    layers = json.loads((tmp_path / SPECS_FILE).read_text())
    layers["layers"][0]["operator"] = "lstm"
    (tmp_path / SPECS_FILE).write_text(json.dumps(layers))
    with pytest.raises(CheckpointError, match="lstm"):
        load_subnet(tmp_path)


def test_a_subnet_needs_no_elastic_code():
    """Every module of this floor that `supernet.extract` imports, directly or not.

    Read off the source, because the package's own __init__ imports the elastic modules too.
    """
    root = Path(supernet.extract.__file__).parent
    reached, waiting = set(), ["supernet.extract"]
    while waiting:
        name = waiting.pop()
        if name in reached:
            continue
        reached.add(name)
        path = root.joinpath(*name.split(".")[1:])
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        tree = ast.parse(file.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                waiting += [a.name for a in node.names if a.name.startswith("supernet.")]
            elif isinstance(node, ast.ImportFrom) and node.module == "supernet":
                waiting += [f"supernet.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module.startswith("supernet."):
                waiting.append(node.module)
    assert {"supernet.subnet_layers", "supernet.integer_ops"} < reached
    assert not [n for n in reached if n.startswith(("supernet.elastic", "supernet.supernet"))]

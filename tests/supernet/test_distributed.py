"""Two processes and one: the same results from the same global batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from supernet.distributed import SingleWorld
from supernet.errors import SupernetConfigError
from supernet.store import load_supernet
from supernet.trainer import Trainer

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import world_cases as cases  # noqa: E402

SIZE = 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("world")


@pytest.fixture(scope="module")
def together(folder):
    """Per process: case -> name -> tensor."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, cases.__file__, str(rank), str(SIZE), str(folder)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(SIZE)
    ]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()
    found = [load_file(folder / f"rank{rank}.safetensors") for rank in range(SIZE)]
    return [
        {
            name: {k.partition("/")[2]: t for k, t in one.items() if k.startswith(f"{name}/")}
            for name in cases.CASES
        }
        for one in found
    ]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """One process: case -> name -> tensor."""
    place = tmp_path_factory.mktemp("alone")
    return {name: case(SingleWorld(), place) for name, case in cases.CASES.items()}


def joined(together, case, name):
    """The rows of the global batch, from those of the processes."""
    parts = [one[case][name] for one in together]
    whole = torch.empty(sum(map(len, parts)), *parts[0].shape[1:])
    for rank, part in enumerate(parts):
        whole[rank::SIZE] = part
    return whole


def test_shared_batch_norm_is_torchs_on_the_whole_batch(together):
    """The channel with the large mean is compared apart: float32 itself has no more digits."""
    x, gradient = cases.norm_input()
    norm = nn.BatchNorm2d(4, momentum=None)
    with torch.no_grad():
        norm.weight[:], norm.bias[:] = cases.norm_parameters()
    x.requires_grad_()
    out = norm(x)
    out.backward(gradient)
    close = {"rtol": 1e-6, "atol": 1e-6}
    got = {name: joined(together, "batch_norm", name) for name in ("out", "grad_x")}
    torch.testing.assert_close(got["out"][:, :3], out[:, :3], **close)
    torch.testing.assert_close(got["grad_x"][:, :3], x.grad[:, :3], **close)
    for one in together:
        found = one["batch_norm"]
        assert not found["grad_weight"][4:].any()
        # Sums over 175 values.
        torch.testing.assert_close(
            found["grad_weight"][:3], norm.weight.grad[:3], rtol=1e-6, atol=1e-5
        )
        torch.testing.assert_close(found["grad_bias"][:4], norm.bias.grad, rtol=1e-6, atol=1e-5)


def test_a_large_mean_does_not_swallow_the_variance(together):
    """In float32 the last channel's mean of squares is known to 0.06, and its variance is 1."""
    x, gradient = cases.norm_input()
    norm = nn.BatchNorm2d(4).double()
    with torch.no_grad():
        norm.weight[:], norm.bias[:] = (t.double() for t in cases.norm_parameters())
    exact = x.double().requires_grad_()
    out = norm(exact)
    out.backward(gradient.double())
    for name, wanted in (("out", out), ("grad_x", exact.grad)):
        got = joined(together, "batch_norm", name)[:, 3].double()
        torch.testing.assert_close(got, wanted[:, 3], rtol=1e-3, atol=1e-3)


def test_recalibrated_statistics_are_those_of_the_whole_batches(together):
    x, _ = cases.norm_input()
    norm = nn.BatchNorm2d(4, momentum=None)
    for batch in (x, 2 * x + 1):
        norm(batch)
    for one in together:
        found = one["batch_norm"]
        torch.testing.assert_close(found["mean"][:4], norm.running_mean)
        torch.testing.assert_close(found["var"][:3], norm.running_var[:3])
        assert found["mean"][4:].tolist() == [0, 0]


def test_the_sum_of_all_workers_has_the_gradient_of_the_sum_of_their_losses(together, alone):
    assert all(one["sum_gradient"]["total"] == 140 for one in together)
    got = joined(together, "sum_gradient", "grad")
    torch.testing.assert_close(got, alone["sum_gradient"]["grad"])
    torch.testing.assert_close(got, 4 * 140 * torch.arange(1.0, 8.0))


@pytest.mark.parametrize("case", ["sandwich", "sandwich_vit", "sandwich_layer_norm"])
def test_twenty_sgd_steps_give_the_weights_of_one_process(together, alone, case):
    """With BatchNorm, whose statistics are all workers', and with LayerNorm."""
    trained = {n: t for n, t in alone[case].items() if t.is_floating_point()}
    for one in together:
        assert one[case].keys() == alone[case].keys()
        for name, tensor in trained.items():
            if "running" in name:
                torch.testing.assert_close(one[case][name], tensor, rtol=1e-3, atol=1e-4)
            else:
                worst = float((one[case][name] - tensor).abs().max())
                assert worst <= 1e-5, (name, worst)


@pytest.mark.parametrize("case", ["sandwich", "sandwich_layer_norm"])
def test_the_steps_of_the_sandwich_are_not_lost_in_the_tolerance(alone, case):
    space = cases.SPACE if case == "sandwich" else cases.vit_space("layer")
    start = Trainer(space, cases.SGD, cases.DATA)
    start.start_sandwich()
    moved = [
        float((tensor.detach() - alone[case][name]).abs().max())
        for name, tensor in start.supernet.named_parameters()
    ]
    assert max(moved) > 1e-3
    assert sum(distance > 5e-5 for distance in moved) > len(moved) / 2


def test_every_process_trains_the_same_configs_as_one_alone(together, alone):
    wanted = bytes(alone["sandwich"]["configs"].tolist()).decode().split(",")
    assert len(wanted) == 3 * cases.STEPS
    assert len(set(wanted)) > cases.STEPS / 2
    for one in together:
        assert bytes(one["sandwich"]["configs"].tolist()).decode().split(",") == wanted


def test_the_processes_agree_to_the_last_bit(together):
    first, second = together
    for case in ("sandwich", "sandwich_vit", "sandwich_layer_norm", "whole_run"):
        assert all(torch.equal(first[case][n], second[case][n]) for n in first[case])


def test_a_stop_asked_of_one_stops_all_and_loses_nothing(together):
    for one in together:
        whole, stopped = one["whole_run"], one["stopped_run"]
        assert whole.keys() == stopped.keys()
        assert all(torch.equal(whole[n], stopped[n]) for n in whole)


def test_the_stored_supernet_is_that_of_the_workers(together, folder):
    stored = load_supernet(folder / "whole").state_dict()
    assert all(torch.equal(stored[n], t) for n, t in together[0]["whole_run"].items())


def test_a_batch_smaller_than_the_world_is_refused():
    world = SingleWorld()
    world.size = 34
    with pytest.raises(SupernetConfigError, match=r"batch_size 33 is smaller than .* 34"):
        Trainer(cases.SPACE, cases.CONFIG, cases.DATA, world)


@pytest.mark.parametrize("count", [2, 3, 33])
def test_shares_weight_means_to_the_mean_of_all_rows(count):
    values = torch.rand(count, dtype=torch.float64)
    means = []
    for rank in range(2):
        world = SingleWorld()
        world.rank, world.size = rank, 2
        means.append(world.share(count) * values[world.rows].mean())
    torch.testing.assert_close(sum(means) / 2, values.mean())

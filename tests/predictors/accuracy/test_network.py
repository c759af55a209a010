from __future__ import annotations

import numpy as np
import pytest
import torch

from predictors.accuracy.network import (
    QUANTISATION,
    blind_to,
    forward,
    init_network,
    with_quantisation,
)

MEMBERS, INPUTS, COLUMNS, HIDDEN = 3, 7, 4, (6, 5)


@pytest.fixture
def parameters():
    generator = torch.Generator().manual_seed(0)
    return init_network(INPUTS, 2, HIDDEN, MEMBERS, generator)


@pytest.fixture
def rows():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(20, INPUTS, generator=generator), torch.randn(
        20, COLUMNS, generator=generator
    )


def test_the_quantised_term_is_added_behind_the_first_relu(parameters, rows):
    """h1 = ReLU(W_a x + b) + W_q q."""
    found = with_quantisation(parameters, COLUMNS)
    found[QUANTISATION] = torch.randn(MEMBERS, COLUMNS, HIDDEN[0])
    inputs, quantisation = rows
    for member in range(MEMBERS):
        own = {name: value[member] for name, value in found.items()}
        hidden = torch.relu(inputs @ own["layer0.weight"] + own["layer0.bias"])
        hidden = hidden + quantisation @ own[QUANTISATION]
        assert (hidden < 0).any()
        hidden = torch.relu(hidden @ own["layer1.weight"] + own["layer1.bias"])
        expected = (hidden @ own["layer2.weight"] + own["layer2.bias"])[:, 0]
        assert torch.allclose(forward(found, inputs, quantisation)[member], expected, atol=1e-5)


def test_untrained_quantisation_changes_nothing(parameters, rows):
    """W_a and all later layers are those of the float32 predictor."""
    found = with_quantisation(parameters, COLUMNS)
    assert torch.equal(forward(found, *rows), forward(parameters, *rows))
    for name, value in parameters.items():
        assert torch.equal(found[name], value)
        assert found[name].data_ptr() != value.data_ptr()


def test_columns_that_a_network_is_blind_to_change_nothing_until_they_are_learnt(parameters, rows):
    blind = [True, False, True, False, False, False, False]
    found = blind_to(parameters, blind)
    inputs, quantisation = rows
    other = inputs.clone()
    other[:, blind] += 1.0
    before = forward(found, inputs, quantisation)
    assert torch.equal(before, forward(found, other, quantisation))
    assert not torch.equal(before, forward(parameters, inputs, quantisation))
    seen = {name: value.clone().requires_grad_() for name, value in found.items()}
    forward(seen, inputs, quantisation).sum().backward()
    assert (seen["layer0.weight"].grad[:, blind] != 0).any()


def test_members_start_out_different_and_near_the_mean():
    generator = torch.Generator().manual_seed(0)
    parameters = init_network(300, 4, (96, 96), 5, generator)
    # Many columns, each of which is 1 rarely.
    codes = (np.random.default_rng(0).random((500, 300)) < 0.2) / (300 * 0.16) ** 0.5
    inputs = torch.from_numpy(2 * codes.astype(np.float32))
    found = forward(parameters, inputs, torch.zeros(500, 0))
    assert found.shape == (5, 500)
    assert 0.05 < found.std() < 1
    assert found[0].sub(found[1]).abs().mean() > 0.05

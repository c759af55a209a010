"""Every pair of options that is refused; the message names both and what is allowed."""

from __future__ import annotations

import pytest

from spaces.dimension import DimensionKind
from supernet.config import SupernetConfig
from supernet.conflicts import check_choices
from supernet.errors import SupernetConfigError
from tests.supernet.tiny_vit import tiny_vit_space


def refused(space, match, **options):
    config = SupernetConfig.model_validate(options)
    with pytest.raises(SupernetConfigError, match=match) as found:
        check_choices(space, config)
    assert "allowed:" in str(found.value)


COMPLEXITY = {"name": "complexity", "levels": 3}


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"sampler": "complexity"}, "distillation .* needs a max .* sampler complexity"),
        ({"sampler": "performance"}, "distillation .* needs a max .* sampler performance"),
        ({"sampler": "uniform"}, "distillation .* needs a max .* sampler uniform"),
        ({"sampler": "nested"}, "distillation .* needs a max .* sampler nested"),
        (
            {"sampler": "complexity", "objective": "instatune"},
            "instatune .* needs a max .* sampler complexity",
        ),
        (
            {"sampler": "uniform", "objective": {"name": "distillation", "teacher": "random_mean"}},
            "distillation .* needs a min .* sampler uniform",
        ),
        (
            {
                "sampler": "uniform",
                "teacher": "t",
                "objective": {"name": "external_teacher", "smallest": "random_mean"},
            },
            "external_teacher .* needs a min .* sampler uniform",
        ),
    ],
)
def test_an_objective_whose_teacher_the_sampler_does_not_draw(small_space, options, match):
    refused(small_space, match, **options)


def test_a_chain_that_has_no_more_bits_to_begin_with(small_float_space, small_space):
    options = {"sampler": "complexity", "objective": "chain"}
    refused(small_float_space, "chain .* sampler complexity .* no bits to choose", **options)
    check_choices(small_space, SupernetConfig.model_validate(options))
    check_choices(small_float_space, SupernetConfig.model_validate({"objective": "chain"}))


@pytest.mark.parametrize("bits", ["triangle", "hessian"])
def test_two_owners_of_the_bits(small_space, bits):
    counting = {**COMPLEXITY, "measure": "bit_operations", "bits": bits}
    refused(small_space, f"complexity .* bits: {bits} .*", sampler=counting, objective="chain")
    banks = {"name": "performance", "bits": bits}
    refused(small_space, f"performance .* bits: {bits}", sampler=banks, objective="chain")
    shared = {**COMPLEXITY, "bits": bits}
    check_choices(
        small_space, SupernetConfig.model_validate({"sampler": shared, "objective": "chain"})
    )


def test_a_bit_sampler_without_bits(small_float_space):
    refused(
        small_float_space,
        "bits: triangle .* space small has none",
        sampler={"name": "sandwich", "bits": "triangle"},
    )


@pytest.mark.parametrize("objective", ["distillation", "task", "chain", "instatune"])
def test_an_external_teacher_beside_an_objective_that_has_its_own(small_space, objective):
    refused(small_space, f"teacher .* objective {objective}", teacher="t", objective=objective)


def test_the_teacher_of_the_own_largest_config_is_named(small_space):
    refused(small_space, "already distils from its own max", teacher="t", objective="distillation")


@pytest.mark.parametrize(
    "objective", ["external_teacher", {"name": "instatune", "teacher_until": 0.5}]
)
def test_an_objective_without_its_external_teacher(small_space, objective):
    refused(small_space, "external teacher, and teacher names none", objective=objective)


def test_adaptive_rates_of_scales_without_an_optimiser_for_them(small_space):
    update = {"name": "accumulate", "scale_rates": "adaptive"}
    refused(small_space, "scale_rates: adaptive .* update accumulate", update=update)


def test_updates_per_precision_without_precisions(small_float_space):
    refused(small_float_space, "per_precision .* space small", update="per_precision")


def test_flattened_weights_before_they_are_sorted_by_magnitude(small_space, small_bits_space):
    regularizer = {"name": "kurtosis_skew", "warmup": True}
    refused(small_space, "kurtosis_skew with warmup: true .* sorts", regularizer=regularizer)
    for space, chosen in ((small_space, "kurtosis_skew"), (small_bits_space, regularizer)):
        check_choices(space, SupernetConfig.model_validate({"regularizer": chosen}))
    space = tiny_vit_space()
    heads = {d.name: d.choices for d in space.dimensions if d.kind is DimensionKind.HEADS}
    heads_alone = space.restrict(choices={d.name: d.choices[-1:] for d in space.dimensions} | heads)
    refused(heads_alone, "sorts the channels of the elastic widths", regularizer=regularizer)


def test_asymmetric_weights_with_shared_powers_of_two(plain):
    match = "shared_pow2 .* block0.conv of plain: .*asymmetric.* has a zero point"
    for forms in (("symmetric", "asymmetric"), ("asymmetric",)):
        refused(plain(symmetry=forms), match, quantizer="shared_pow2")
    symmetric = plain(symmetry=("symmetric",))
    check_choices(symmetric, SupernetConfig(quantizer="shared_pow2"))
    check_choices(plain(), SupernetConfig())


def test_other_bits_with_one_8_bit_scale(plain):
    space = plain(w_bits=(4, 8), a_bits=(8,), symmetry=("symmetric",))
    refused(space, "shared_8bit .* block0.conv of plain: .*needs another", quantizer="shared_8bit")
    eight = plain(w_bits=(8,), a_bits=(8,), symmetry=("symmetric",))
    check_choices(eight, SupernetConfig(quantizer="shared_8bit"))


def test_the_default_options_suit_every_space(small_space, small_float_space, tiny_space):
    for space in (small_space, small_float_space, tiny_space):
        check_choices(space, SupernetConfig())

"""Training options that contradict one another, or the space; each with what is allowed instead.

Published methods exclude one another where both decide the same thing, or where one takes away what
the other needs.
"""

from __future__ import annotations

from collections.abc import Callable

from spaces.dimension import DimensionKind
from spaces.quant_scheme import FLOAT_BITS
from spaces.space import SearchSpace
from supernet.config import SupernetConfig
from supernet.errors import SupernetConfigError
from supernet.objectives import OBJECTIVES, DistillationConfig
from supernet.quantizers import PER_FORM, QUANTIZERS
from supernet.samplers import SAMPLERS, Role
from supernet.samplers.columns import BITS, chosen
from supernet.supernet import layer_options

_SORTED = frozenset(
    {DimensionKind.WIDTH, DimensionKind.EXPANSION, DimensionKind.FFN, DimensionKind.HEADS}
)


def check_choices(space: SearchSpace, config: SupernetConfig) -> None:
    """Refuse a combination that cannot work in `space`.

    Raises:
        SupernetConfigError: Names both choices, why they exclude one another, and what is allowed.
    """
    for rule in _RULES:
        problem = rule(space, config)
        if problem is not None:
            raise SupernetConfigError(problem)


def _shared_quantizer(space: SearchSpace, config: SupernetConfig) -> str | None:
    """What the quantiser itself refuses: powers of two share no zero point, one 8-bit scale no
    other bits."""
    if config.quantizer == PER_FORM:
        return None
    quantizer = QUANTIZERS.get(config.quantizer)
    for site, options in layer_options(space).items():
        try:
            quantizer(options.weight_schemes, options.largest.weight_shape)
            quantizer(options.activation_schemes, None)
        except SupernetConfigError as error:
            return f"quantizer {config.quantizer} and the forms of {site} of {space.name}: {error}"
    return None


def _two_owners_of_bits(space: SearchSpace, config: SupernetConfig) -> str | None:
    sampler = SAMPLERS.get(config.sampler.name)
    bits = config.sampler.bits
    if not sampler.owns_bits(config.sampler) or bits.name == "uniform":
        return None
    return (
        f"sampler {config.sampler} chooses the bits itself, and bits: {bits} would choose them "
        "too; allowed: bits: uniform, or a sampler that leaves the bits alone (sandwich, uniform, "
        "nested, complexity by macs)"
    )


def _no_bits_to_draw(space: SearchSpace, config: SupernetConfig) -> str | None:
    bits = config.sampler.bits
    if bits.name == "uniform" or chosen(space, BITS).any():
        return None
    return (
        f"bits: {bits} draws bits, and space {space.name} has none to choose; allowed: bits: "
        "uniform, or a space with several choices of w_bits or a_bits"
    )


def _missing_roles(space: SearchSpace, config: SupernetConfig) -> str | None:
    objective = OBJECTIVES.get(config.objective.name)
    missing = objective.needs(config.objective) - SAMPLERS.get(config.sampler.name).roles(
        config.sampler
    )
    if not missing:
        return None
    roles = ", ".join(sorted(missing))
    return (
        f"objective {config.objective} as set needs a {roles} config in every step, and sampler "
        f"{config.sampler} as set does not always draw one; allowed: sampler sandwich, or an "
        "objective that does without (task, chain, external_teacher; distillation with teacher: "
        "random_mean where random and smallest configs are drawn)"
    )


def _chain_without_bits(space: SearchSpace, config: SupernetConfig) -> str | None:
    objective = OBJECTIVES.get(config.objective.name)
    if not objective.raises_bits(config.objective) or chosen(space, BITS).any():
        return None
    if Role.MAX in SAMPLERS.get(config.sampler.name).roles(config.sampler):
        return None
    return (
        f"objective {config.objective} begins with the most bits, sampler {config.sampler} draws "
        f"no largest config and space {space.name} has no bits to choose; allowed: sampler "
        "sandwich, or a space with several choices of w_bits or a_bits"
    )


def _teacher(space: SearchSpace, config: SupernetConfig) -> str | None:
    uses = OBJECTIVES.get(config.objective.name).uses_teacher(config.objective)
    if uses and config.teacher is None:
        return (
            f"objective {config.objective} as set learns from an external teacher, and teacher "
            "names none; allowed: teacher with the folder of a stored subnet or supernet, or "
            "another objective"
        )
    if uses or config.teacher is None:
        return None
    why = "does not use one"
    if isinstance(config.objective, DistillationConfig):
        why = f"already distils from its own {config.objective.teacher}"
    return (
        f"teacher names an external one, and objective {config.objective} as set {why}; allowed: "
        "objective external_teacher, instatune with teacher_until above 0, or no teacher"
    )


def _adaptive_scales(space: SearchSpace, config: SupernetConfig) -> str | None:
    if config.update.scale_rates != "adaptive" or config.update.name != "accumulate":
        return None
    return (
        "scale_rates: adaptive needs an optimiser for the scales alone, and update accumulate has "
        "one for scales and weights; allowed: update per_precision, or scale_rates: scheduled"
    )


def _precisions_to_step(space: SearchSpace, config: SupernetConfig) -> str | None:
    if config.update.name != "per_precision":
        return None
    kinds = (d for d in space.dimensions if d.kind in BITS)
    if any(int(c) < FLOAT_BITS for d in kinds for c in d.choices):
        return None
    return (
        f"update per_precision steps the scales of quantisers, and space {space.name} has none; "
        "allowed: update accumulate, or a space with w_bits below 32"
    )


def _flattened_importance(space: SearchSpace, config: SupernetConfig) -> str | None:
    regularizer = config.regularizer
    if regularizer is None or not regularizer.warmup or not chosen(space, _SORTED).any():
        return None
    return (
        f"regularizer {regularizer} with warmup: true makes weights alike in magnitude, by which "
        f"the warm-up's end sorts the channels of the elastic widths of {space.name}; allowed: "
        "warmup: false, or a space of fixed widths"
    )


_Rule = Callable[[SearchSpace, SupernetConfig], str | None]
_RULES: tuple[_Rule, ...] = (
    _shared_quantizer,
    _two_owners_of_bits,
    _no_bits_to_draw,
    _missing_roles,
    _chain_without_bits,
    _teacher,
    _adaptive_scales,
    _precisions_to_step,
    _flattened_importance,
)

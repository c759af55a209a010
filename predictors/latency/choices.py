"""How often each choice occurs in a config, and which choices it makes: plain features of codes."""

from __future__ import annotations

import numpy as np

from predictors.latency.configs import Configs, ConfigSchema, FloatArray, Value


def _alphabets(schema: ConfigSchema) -> dict[str, tuple[Value, ...]]:
    """Group -> the choices of its columns, in the order of their first occurrence."""
    found: dict[str, dict[Value, None]] = {}
    for column in schema.columns:
        found.setdefault(column.group, {}).update(dict.fromkeys(column.choices))
    return {group: tuple(values) for group, values in found.items()}


def count_names(schema: ConfigSchema) -> tuple[str, ...]:
    """Names of the columns of `choice_counts`: `group=choice`."""
    return tuple(f"{g}={value}" for g, values in _alphabets(schema).items() for value in values)


def choice_counts(configs: Configs) -> FloatArray:
    """In how many columns of a group each choice of the group is made.

    Returns:
        float64 (n, k), in the order of `count_names`.
    """
    names = count_names(configs.schema)
    made = [f"{c.group}={value}" for c in configs.schema.columns for value in c.choices]
    counted = np.array(made)[:, None] == np.array(names)
    counts: FloatArray = one_hot_choices(configs) @ counted.astype(np.float64)
    return counts


def one_hot_choices(configs: Configs) -> FloatArray:
    """1 for every choice that a config makes.

    Returns:
        float64 (n, sum of the columns' choices); all zeros for an absent column.
    """
    sizes = [len(column.choices) for column in configs.schema.columns]
    column = np.repeat(np.arange(len(sizes)), sizes)
    choice = np.concatenate([np.arange(0), *map(np.arange, sizes)])
    found: FloatArray = (configs.codes[:, column] == choice).astype(np.float64)
    return found

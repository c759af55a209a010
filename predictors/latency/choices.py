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
    names = {name: number for number, name in enumerate(count_names(configs.schema))}
    counts = np.zeros((len(configs), len(names)))
    rows = np.arange(len(configs))
    for number, column in enumerate(configs.schema.columns):
        places = np.array([names[f"{column.group}={value}"] for value in column.choices])
        codes = configs.codes[:, number]
        present = codes >= 0
        # A row occurs once for each column, so plain addition counts it.
        counts[rows[present], places[codes[present]]] += 1.0
    return counts


def one_hot_choices(configs: Configs) -> FloatArray:
    """1 for every choice that a config makes.

    Returns:
        float64 (n, sum of the columns' choices); all zeros for an absent column.
    """
    sizes = np.array([len(column.choices) for column in configs.schema.columns])
    starts = np.cumsum(sizes) - sizes
    found = np.zeros((len(configs), int(sizes.sum())))
    rows, columns = np.nonzero(configs.codes >= 0)
    found[rows, starts[columns] + configs.codes[rows, columns]] = 1.0
    return found

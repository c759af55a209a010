"""Tables and configs that predictors would misread are refused where they are made."""

from __future__ import annotations

import numpy as np
import pytest

from predictors import (
    LATENCY_PREDICTORS,
    Configs,
    ConfigSchema,
    InvalidTargetError,
    LatencyTables,
    TableError,
    TooFewSamplesError,
)
from predictors.latency import Amount, Column
from predictors.latency.configs import check_schema
from tests.predictors.latency.on_tables import edges_schema, edges_tables, random_edges

POOL = random_edges(40, 0)
MS = np.arange(1.0, 41.0)


@pytest.mark.parametrize(
    ("latencies", "families", "error", "message"),
    [
        ({"a": MS[:9]}, {}, TableError, "latencies of shape"),
        ({"a": np.where(MS == 4, -1.0, MS)}, {}, InvalidTargetError, "number 3 is -1.0 ms"),
        ({"a": np.where(MS == 4, np.inf, MS)}, {}, InvalidTargetError, "finite and above 0"),
        ({"a": np.full(40, 2.0)}, {}, InvalidTargetError, "all 40 latencies are 2.0 ms"),
        ({"a": np.full(40, np.nan)}, {}, InvalidTargetError, "got none"),
        ({"a": MS}, {"b": "x"}, TableError, "given for 'b'"),
    ],
)
def test_bad_latencies_are_refused(latencies, families, error, message):
    with pytest.raises(error, match=message):
        LatencyTables(POOL, latencies, families)


def test_a_latency_that_is_missing_is_no_error():
    holes = np.where(MS > 30, np.nan, MS)
    tables = LatencyTables(POOL, {"a": holes, "b": MS}, {"b": "x"})
    assert (tables.family("a"), tables.members("x")) == ("a", ("b",))
    assert tables.without(("b",)).devices == ("a",)
    part = tables.take(np.array([3, 35]))
    assert (len(part.configs), part.devices, part.family("b")) == (2, ("b",), "x")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c, a: (c + 5, a), "has code"),
        (lambda c, a: (c[:, :4], a), "must be"),
        (lambda c, a: (c, -1.0 - a), "feat_macs is"),
        (lambda c, a: (c, np.where(a > 0, np.nan, a)), "finite and not negative"),
    ],
)
def test_configs_outside_their_schema_are_refused(change, message):
    with pytest.raises(TableError, match=message):
        Configs(POOL.schema, *change(POOL.codes, POOL.amounts))


def test_a_schema_names_what_differs_and_travels_as_json():
    schema = edges_schema()
    assert ConfigSchema.from_json(schema.to_json()) == schema
    fewer = ConfigSchema(schema.columns[:5], schema.amounts)
    with pytest.raises(TableError, match=r"missing: \['e5'\]"):
        check_schema(fewer, schema)
    with pytest.raises(TableError, match="amounts"):
        check_schema(edges_schema(macs=False), schema)
    for columns, amounts, message in (
        ((), (), "no column"),
        ((Column("a", (1, 1), "g"),), (), "distinct"),
        ((Column("a", (1, 2), "g"),), (Amount("a", 1.0),), "repeats"),
        ((Column("a", (1, 2), "g"),), (Amount("b", 0.0),), "above 0"),
    ):
        with pytest.raises(TableError, match=message):
            ConfigSchema(columns, amounts)
    with pytest.raises(TableError, match="not the schema"):
        ConfigSchema.from_json({"columns": [{}]})


@pytest.mark.parametrize("name", ["adaptive", "ridge", "macs", "nearest"])
@pytest.mark.parametrize(
    ("count", "change", "error", "message"),
    [
        (1, lambda ms: ms, TooFewSamplesError, "at least"),
        (10, lambda ms: 0 * ms + 3.0, InvalidTargetError, "all 10 latencies are 3.0 ms"),
        (10, lambda ms: ms - 5.0, InvalidTargetError, "above 0"),
        (10, lambda ms: np.where(ms == 4.0, np.nan, ms), InvalidTargetError, "number 3 is nan"),
        (10, lambda ms: ms[:8], InvalidTargetError, "10 configs but"),
    ],
)
def test_bad_samples_are_refused_by_every_predictor(name, count, change, error, message):
    predictor = LATENCY_PREDICTORS.get(name)(POOL.schema).learn(edges_tables(POOL))
    with pytest.raises(error, match=message):
        predictor.fit(POOL.take(np.arange(count)), change(MS[:count]))

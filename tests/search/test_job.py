from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from compilers.devices import DeviceConfig, RpcConfig
from search.errors import JobConfigError
from search.job import JobSettings, load_job, parse_job
from spaces import SpaceError, UnknownNameError

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits.yaml"


def example() -> dict:
    return yaml.safe_load(EXAMPLE.read_text())


@pytest.mark.parametrize(
    ("section", "change"),
    [
        ("supernet", {"learning_rate": float("inf")}),
        ("supernet", {"augmentation": {"randaugment_magnitude": float("nan")}}),
        ("supernet", {"objective": {"name": "external_teacher", "temperature": float("inf")}}),
        ("data", {"mean": [float("nan")], "std": [1.0]}),
        ("finetune", {"weight_decay": float("inf")}),
    ],
)
def test_numbers_that_are_none_are_refused(section, change):
    """JSON, and so the database, has neither infinity nor NaN."""
    job = example()
    with pytest.raises(JobConfigError, match="finite number"):
        parse_job(job | {section: job.get(section, {}) | change})


def test_the_example_is_valid_and_survives_json():
    job = load_job(EXAMPLE)
    assert job.search_space().log10_size > 12
    assert JobSettings.model_validate_json(job.model_dump_json()) == job


def test_a_device_described_in_place_has_the_settings_of_its_kind():
    board = {"name": "board", "kind": "tvm_rpc", "host": "127.0.0.1", "port": 9191, "isa": "avx2"}
    job = parse_job(example() | {"devices": ["registered", {"name": "cpu"}, board]})
    expected = ("registered", DeviceConfig(name="cpu"), RpcConfig(**board))
    assert job.devices == expected
    # What is stored of a job.
    assert JobSettings.model_validate(job.decisive()).devices == expected


def test_a_space_described_in_place():
    named = load_job(EXAMPLE).search_space()
    described = {"family": "mobilenetv3", "settings": named.family.to_json()}
    job = parse_job(example() | {"space": described, "choices": {"*.kernel": [3]}})
    assert job.search_space().key == named.restrict(choices={"*.kernel": [3]}).key
    # What is stored of a job.
    assert JobSettings.model_validate(job.decisive()) == job
    family = {"supernet": {"family": "mobilenetv3"}}
    assert parse_job(example() | {"space": described} | family).search_space().key == named.key


def test_resources_do_not_decide_the_result():
    other = parse_job(example() | {"resources": {"num_cpus": 1, "retries": 5}})
    assert other.decisive() == load_job(EXAMPLE).decisive()
    assert parse_job(example() | {"seed": 1}).decisive() != other.decisive()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"devces": []}, r"unknown key 'devces'.*Did you mean 'devices'"),
        ({"search": {"generation": 3}}, r"unknown key 'search.generation'.*'generations'"),
        ({"supernet": {"epoch": 3}}, r"unknown key 'supernet.epoch'.*'epochs'"),
        ({"devices": []}, "at least 1 item"),
        ({"resources": {"training_workers": 65}}, "training_workers 65 .* batch_size 64"),
        ({"devices": ["a", "a"]}, "'a' is listed twice"),
        ({"devices": [{"name": "a", "thread": 1}]}, "devices.0: .*'thread'. Did you mean"),
        (
            {"devices": [{"name": "a", "kind": "tvm_rpc", "prot": 1}]},
            r"devices.0: .*'prot'. Did you mean 'port'",
        ),
        ({"devices": [{"name": "a", "port": 9190}]}, r"devices.0: .*unknown key 'port'"),
        ({"objectives": [{"name": "latency", "direction": "minimize"}]}, "no unit; allowed: .*ms"),
        ({"objectives": [{"name": "speed", "unit": "ms"}]}, "unknown metric 'speed'"),
        ({"constraints": [{"name": "size", "max": 3, "unit": "ms"}]}, "'ms'.*allowed: .*kB"),
        ({"constraints": [{"name": "accuracy", "min": 101, "unit": "%"}]}, "cannot be met"),
        (
            {
                "constraints": [
                    {"name": "accuracy", "min": 95, "unit": "%"},
                    {"name": "accuracy", "max": 90, "unit": "%"},
                ]
            },
            "no subnet can meet both constraints on 'accuracy'",
        ),
        ({"search": {"latency_predictor": "rigde"}}, "Did you mean 'ridge'"),
        ({"search": {"reference_configs": 2}}, "greater than or equal to 5"),
        ({"name": "No Spaces"}, "name"),
        ({"seed": -1}, "seed"),
        ({"space": {"family": "resnett", "settings": {}}}, "space: .*unknown family 'resnett'"),
        ({"space": {"family": "mobilenetv3"}}, "space: .*settings: Field required"),
        (
            {"space": {"family": "mobilenetv3", "settings": {"heads": [8]}}},
            "space: .*'mobilenetv3': unknown key 'heads'. Did you mean 'head'",
        ),
        ({"data": {"name": "digit"}}, "unknown data set 'digit'. Did you mean 'digits'"),
        ({"supernet": {"augmentation": {"flip": 1}}}, r"'supernet.augmentation.flip'"),
        ({"finetune": {"epoch": 3}}, r"unknown key 'finetune.epoch'.*'epochs'"),
    ],
)
def test_mistakes_are_named_with_what_is_allowed(change, message):
    with pytest.raises(JobConfigError, match=message):
        parse_job(example() | change)


def test_unreadable_files(tmp_path):
    with pytest.raises(JobConfigError, match="cannot read job file"):
        load_job(tmp_path / "missing.yaml")
    (tmp_path / "bad.yaml").write_text("name: [")
    with pytest.raises(JobConfigError, match="not valid YAML"):
        load_job(tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(JobConfigError, match="must be a YAML mapping"):
        load_job(tmp_path / "list.yaml")


def test_space_and_choices_are_checked():
    with pytest.raises(UnknownNameError, match="mobilenetv3_digits"):
        parse_job(example() | {"space": "mobilenetv3_digit"}).search_space()
    with pytest.raises(SpaceError, match="resolution = 7 is not allowed"):
        parse_job(example() | {"choices": {"resolution": [7]}}).search_space()
    restricted = parse_job(example() | {"choices": {"*.kernel": [3]}}).search_space()
    assert restricted.log10_size < load_job(EXAMPLE).search_space().log10_size

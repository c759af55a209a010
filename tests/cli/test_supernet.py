from __future__ import annotations

import json

import pytest

from search.workspace import open_store

STAGE = {"width": [8, 16], "depth": [1], "expansion": [2], "kernel": [3], "stride": 2}
SMALL = {
    "space": {
        "family": "mobilenetv3",
        "settings": {
            "input_channels": 1,
            "classes": 10,
            "resolution": [8],
            "stem": [8],
            "stages": [STAGE],
            "head": [16],
            "schemes": ["fp32", "w8a8"],
        },
    },
    "supernet": {"warmup_epochs": 1, "epochs": 1, "batch_size": 512},
    "devices": ["nobody"],
}


def test_train_list_show_eval(netcarve, job_file, home):
    file = job_file(**SMALL)
    done = netcarve("supernet", "train", file, "--json")
    assert done.exit_code == 0, done.stderr
    assert "train: " in done.stderr
    trained = json.loads(done.stdout)
    key = trained["key"]
    assert (trained["state"], trained["space"]) == ("trained", "mobilenetv3 (inline)")
    again = netcarve("supernet", "train", file, "--quiet")
    assert (again.stderr, again.exit_code) == ("", 0)
    assert key in again.stdout

    (listed,) = json.loads(netcarve("supernet", "list", "--json").stdout)
    assert listed == trained
    row = netcarve("supernet", "list").stdout.splitlines()[2]
    assert row.split()[:5] == [key, "trained", "mobilenetv3", "(inline)", "digits"]
    text = netcarve("supernet", "show", key).stdout
    assert "family mobilenetv3" in text
    assert "batch_size" in text
    assert json.loads(netcarve("supernet", "show", key, "--json").stdout) == trained

    scored = netcarve("supernet", "eval", key, "--random", 1, "--seed", 3, "--json", "-q")
    assert (scored.stderr, scored.exit_code) == ("", 0)
    subnets = json.loads(scored.stdout)["subnets"]
    assert [(s["subnet"], s["bits"]) for s in subnets] == [
        (name, bits) for name in ("smallest", "largest", "random 1") for bits in (8, 32)
    ]
    table = netcarve("supernet", "eval", key, "--random", 0).stdout.splitlines()
    assert len(table) == 2 + 4
    assert table[0].split("  ")[0] == "subnet"
    assert f"{subnets[0]['accuracy']:.2f}" in table[2].split()


def test_nothing_yet(netcarve):
    assert "No supernets." in netcarve("supernet", "list").stdout
    assert json.loads(netcarve("supernet", "list", "--json").stdout) == []


@pytest.mark.parametrize("command", ["show", "eval"])
def test_unknown_names_list_the_known(netcarve, home, command):
    with open_store(home) as store:
        store.results.record_supernet("ab12", "sha256:" + "0" * 64, {})
    done = netcarve("supernet", command, "ab21")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "Did you mean 'ab12'?" in done.stderr


def test_what_nobody_knows_is_a_typed_error(netcarve, home):
    """A supernet of an earlier version, whose job is gone."""
    with open_store(home) as store:
        store.results.record_supernet("ab12", "sha256:" + "0" * 64, {"train_images": 3})
    assert "trained" in netcarve("supernet", "show", "ab12").stdout
    done = netcarve("supernet", "eval", "ab12")
    assert done.exit_code == 2
    assert "nothing says on which data supernet ab12 was trained" in done.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"supernet": {"family": "resnet"}}, "supernet.family is 'resnet', but space mobilenetv3"),
        ({"supernet": {"batch_size": 2000}}, "exceeds the 1079 training images"),
        ({"data": {"name": "image_folder"}}, "size: Field required"),
        (
            {"data": {"name": "image_folder", "path": "none", "settings": {"size": 8}}},
            "cannot read the folder",
        ),
        (
            {"space": {"family": "mobilenetv3", "settings": {"classes": 10}}},
            "settings of family 'mobilenetv3': input_channels: Field required",
        ),
    ],
)
def test_a_bad_job_is_refused_in_a_line(netcarve, job_file, change, message):
    done = netcarve("supernet", "train", job_file(**(SMALL | change)))
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr
    assert done.stderr.startswith("error: ")

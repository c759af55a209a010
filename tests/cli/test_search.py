from __future__ import annotations

import json

import pytest

BASE = "mobilenetv3_digits"


def test_a_list_of_jobs(netcarve, finished_job):
    assert finished_job in netcarve("search", "list").stdout
    (listed,) = json.loads(netcarve("search", "list", "--json").stdout)
    assert (listed["id"], listed["state"]) == (finished_job, "done")
    assert listed["devices"] == ["fast", "slow"]


def test_no_jobs_is_a_sentence_or_an_empty_list(netcarve):
    assert "No jobs." in netcarve("search", "list").stdout
    assert json.loads(netcarve("search", "list", "--json").stdout) == []


def test_show_counts_what_was_done(netcarve, finished_job):
    data = json.loads(netcarve("search", "show", finished_job, "--json").stdout)
    assert data["evaluations"] == 3
    assert data["measurements"] == {"fast": 3, "slow": 0}
    assert len(data["bundles"]["fast"]) == 1
    text = netcarve("search", "show", finished_job).stdout
    assert "3 on fast, 0 on slow" in text
    assert "done" in text


def test_the_front_is_in_units_of_the_user(netcarve, finished_job):
    text = netcarve("search", "pareto", finished_job, "--device", "fast").stdout
    lines = text.splitlines()
    assert lines[0] == "fast:"
    assert lines[1].split("  ")[0] == "accuracy %"
    first, second = lines[3].split(), lines[4].split()
    # Not exported and never predicted: only what is known is printed.
    assert first[:2] == ["95.00", "0.2000"]
    assert second[:4] == ["99.00", "98.50", "0.8000", "0.9000"]
    assert "slow" not in text


def test_the_front_has_no_dominated_member(netcarve, finished_job):
    data = json.loads(netcarve("search", "pareto", finished_job, "--json").stdout)
    assert [member["accuracy"] for member in data["fast"]] == [95.0, 99.0]
    assert data["slow"] == []


def test_a_device_without_results_says_so(netcarve, finished_job):
    text = netcarve("search", "pareto", finished_job).stdout
    assert "slow:\nnothing verified yet" in text


@pytest.mark.parametrize(
    "arguments",
    [["show", "dig"], ["pareto", "dig"], ["resume", "dig"], ["export", "dig"]],
)
def test_unknown_jobs_list_the_known(netcarve, finished_job, arguments):
    done = netcarve("search", *arguments)
    assert done.exit_code == 2
    assert f"unknown job 'dig'. Known: {finished_job}" in done.stderr.replace("\n", " ")
    assert done.stdout == ""


def test_unknown_devices_of_a_job(netcarve, finished_job):
    done = netcarve("search", "pareto", finished_job, "--device", "fats")
    assert done.exit_code == 2
    assert "Did you mean 'fast'?" in done.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"devces": []}, "unknown key 'devces'. Did you mean 'devices'?"),
        ({"supernet": {"epoch": 3}}, "unknown key 'supernet.epoch'. Did you mean 'epochs'?"),
        ({"objectives": [{"name": "latency"}]}, "objective 'latency' has no unit; allowed: "),
        ({"objectives": [{"name": "speed", "unit": "ms"}]}, "unknown metric 'speed'"),
        ({"space": "mobilenet"}, f"unknown space 'mobilenet'. Did you mean '{BASE}'?"),
        ({"devices": ["nowhere"]}, "unknown device 'nowhere'"),
        ({"devices": [{"name": "x", "isa": "sse"}]}, "avx2"),
        ({"devices": [{"name": "x", "kind": "gpu"}]}, "device 'gpu'. Known: cuda, emulated_"),
        ({"choices": {"resolution": [7]}}, "resolution = 7 is not allowed; allowed: 20, 24, 28"),
        (
            {"constraints": [{"name": "size", "max": 1, "unit": "kB"}]},
            "can have size <= 1 kB: the smallest one has",
        ),
        (
            {"constraints": [{"name": "accuracy", "min": 101, "unit": "%"}]},
            "the largest possible value is 100 %",
        ),
    ],
    ids=lambda value: None if isinstance(value, dict) else value[:30],
)
def test_a_bad_job_is_refused_in_a_line_and_leaves_no_job(netcarve, job_file, change, message):
    done = netcarve("search", "run", job_file(**change))
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") <= 2
    assert done.stdout == ""
    assert json.loads(netcarve("search", "list", "--json").stdout) == []


@pytest.mark.parametrize("command", ["run", "resume"])
def test_a_finished_search_prints_fronts_and_where_things_lie(
    netcarve, finished_job, monkeypatch, job_file, tmp_path, command
):
    from search import delivery
    from search.summary import fronts

    def deliver(what, store, artifacts, home, output, progress, replay=None):
        progress("search", 1, 2)
        devices = [
            delivery.DeviceDelivery(name, front, [output / name / m.key for m in front])
            for name, front in fronts(store, finished_job).items()
        ]
        report = output / "report.md"
        return delivery.Delivery(finished_job, devices, report, output / "front.png")

    monkeypatch.setattr(delivery, command, deliver)
    given = ["search", command, job_file() if command == "run" else finished_job]
    given += ["--output", tmp_path / "out"]
    done = netcarve(*given)
    assert done.exit_code == 0
    assert "search: 1/2 (50 %)" in done.stderr
    assert "search: 1/2" not in done.stdout
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.endswith(":")] == ["fast:", "slow:"]
    assert sum(line.startswith("bundle  ") for line in lines) == 2
    assert f"report  {tmp_path / 'out' / 'report.md'}" in lines
    assert f"plot    {tmp_path / 'out' / 'front.png'}" in lines
    done = netcarve(*given, "--json", "--quiet")
    assert done.stderr == ""
    data = json.loads(done.stdout)
    assert (data["job"], [d["device"] for d in data["devices"]]) == (finished_job, ["fast", "slow"])
    assert len(data["devices"][0]["bundles"]) == 2


def test_a_job_file_that_is_not_there_creates_nothing(netcarve, home, tmp_path):
    done = netcarve("search", "run", tmp_path / "none.yaml")
    assert done.exit_code == 2
    assert "cannot read job file" in done.stderr
    assert not home.exists()


def test_a_database_of_a_newer_netcarve_is_left_alone(netcarve, home, job_file):
    import sqlite3

    netcarve("device", "list")
    with sqlite3.connect(home / "netcarve.db") as connection:
        connection.execute("UPDATE netcarve_alembic_version SET version_num = '9999'")
    connection.close()
    before = (home / "netcarve.db").read_bytes()
    for command in (["search", "list"], ["device", "list"], ["search", "run", job_file()]):
        done = netcarve(*command)
        assert done.exit_code == 2
        assert "a newer one wrote it" in done.stderr
    assert (home / "netcarve.db").read_bytes() == before

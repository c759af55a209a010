from __future__ import annotations

import json


def test_markdown_and_json_on_stdout(netcarve, finished_job):
    text = netcarve("report", finished_job).stdout
    assert text.startswith(f"# {finished_job}")
    assert "98.50" in text
    data = json.loads(netcarve("report", finished_job, "--json").stdout)
    assert data["job"] == finished_job
    assert [device["device"] for device in data["devices"]] == ["fast", "slow"]


def test_files_in_a_folder(netcarve, finished_job, tmp_path):
    folder = tmp_path / "out"
    done = netcarve("report", finished_job, "--output", folder)
    assert done.exit_code == 0
    assert str(folder / "report.md") in done.stdout
    assert {file.name for file in folder.iterdir()} == {"report.md", "report.json", "front.png"}
    assert (folder / "front.png").read_bytes().startswith(b"\x89PNG")


def test_unknown_job(netcarve, finished_job):
    done = netcarve("report", "none")
    assert (done.exit_code, done.stdout) == (2, "")
    assert finished_job in done.stderr

from __future__ import annotations

import io

import pytest

from cli.progress import Bars, Lines, Phases, duration, progress


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_remaining_time_is_the_mean_pace_of_this_run_only():
    clock = Clock()
    phases = Phases(clock)
    # A resumed phase: its first 40 steps were done by an earlier process, at no cost to this one.
    phase, _ = phases.update("train", 40, 100)
    assert phase.remaining_s(clock.now) is None
    clock.now += 20
    phase, _ = phases.update("train", 50, 100)
    assert phase.remaining_s(clock.now) == pytest.approx(100)


def test_a_phase_that_begins_again_forgets_its_pace():
    clock = Clock()
    phases = Phases(clock)
    phases.update("verify", 0, 6)
    clock.now += 60
    assert phases.update("verify", 6, 6)[0].finished
    clock.now += 1000
    phase, is_new = phases.update("verify", 0, 6)
    assert is_new
    clock.now += 10
    phase, is_new = phases.update("verify", 1, 6)
    assert not is_new
    assert phase.remaining_s(clock.now) == pytest.approx(50)


def test_a_phase_without_a_total_has_no_estimate():
    clock = Clock()
    phases = Phases(clock)
    phases.update("wait", 0, 0)
    clock.now += 5
    phase, _ = phases.update("wait", 3, 0)
    assert phase.remaining_s(clock.now) is None
    assert not phase.finished


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_durations_are_for_people(seconds, text):
    assert duration(seconds) == text


def test_lines_come_at_most_every_few_seconds():
    clock, stream = Clock(), io.StringIO()
    report = Lines(stream, clock, every=5.0)
    for step in range(1001):
        report("train", step, 1000)
        clock.now += 0.02
    lines = stream.getvalue().splitlines()
    # 20 s of work: the beginning, every 5 s, and the end.
    assert lines[0] == "train: 0/1000 (0 %)"
    assert lines[-1] == "train: 1000/1000 (100 %), took 20 s"
    assert 4 <= len(lines) <= 6
    assert lines[2].endswith("about 10 s left")


def test_a_short_phase_is_one_line():
    clock, stream = Clock(), io.StringIO()
    report = Lines(stream, clock)
    for step in range(4):
        report("fit", step, 3)
    assert stream.getvalue() == "fit: 0/3 (0 %)\n"


def test_waiting_has_no_count():
    stream = io.StringIO()
    Lines(stream, Clock())("wait for 8 GPU in the cluster", 0, 0)
    assert stream.getvalue() == "wait for 8 GPU in the cluster\n"


def test_a_phase_first_heard_of_at_its_end_claims_no_duration():
    stream = io.StringIO()
    Lines(stream, Clock())("measure", 6, 6)
    assert stream.getvalue() == "measure: 6/6 (100 %)\n"


def test_quiet_shows_nothing(capsys):
    with progress(quiet=True) as report:
        report("train", 1, 2)
    assert capsys.readouterr() == ("", "")


def test_progress_is_not_on_stdout(capsys):
    with progress() as report:
        report("train", 1, 2)
    out, err = capsys.readouterr()
    assert out == ""
    assert "train: 1/2 (50 %)" in err


def test_bars_show_each_phase_once_with_its_steps():
    from rich.console import Console
    from rich.progress import Progress

    console = Console(file=io.StringIO())
    with Progress(console=console) as rich_bars:
        bars = Bars(rich_bars)
        bars("train", 1, 4)
        bars("verify", 0, 2)
        bars("train", 4, 4)
        bars("verify", 2, 2)
        bars("verify", 0, 3)
        shown = {task.description: (task.completed, task.total) for task in rich_bars.tasks}
    assert shown == {"train": (4, 4), "verify": (0, 3)}

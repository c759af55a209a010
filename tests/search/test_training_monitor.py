from __future__ import annotations

from search.training_monitor import TrainingMonitor


def test_progress_goes_one_way_and_stop_the_other():
    monitor = TrainingMonitor()
    assert monitor.look(stop=False) is None
    assert monitor.report("warm-up", 1, 5) is False
    assert monitor.report("warm-up", 2, 5) is False
    assert monitor.look(stop=True) == ("warm-up", 2, 5)
    monitor.look(stop=False)
    assert monitor.report("warm-up", 3, 5) is True, "asked for once is asked for"


def test_the_first_failure_is_the_cause_of_the_others():
    monitor = TrainingMonitor()
    assert monitor.outcome() == (None, None)
    monitor.failed("no space left")
    monitor.failed("connection closed by peer")
    monitor.stopped("after step 3")
    assert monitor.outcome() == ("no space left", "after step 3")

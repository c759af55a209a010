from __future__ import annotations

import signal
import threading

import pytest

from search.interrupts import interruptible


def test_the_first_interrupt_asks_and_the_second_one_raises():
    before = signal.getsignal(signal.SIGINT)
    with interruptible() as stop:
        assert not stop()
        signal.raise_signal(signal.SIGINT)
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_handler_of_someone_else_stays():
    heard = []
    before = signal.signal(signal.SIGINT, lambda *_: heard.append(1))
    try:
        with interruptible() as stop:
            signal.raise_signal(signal.SIGINT)
            assert (heard, stop()) == ([1], False)
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_are_never_asked():
    found = []

    def work():
        with interruptible() as stop:
            found.append(stop())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False]

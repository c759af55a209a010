from __future__ import annotations

import numpy as np

from supernet.samplers.memory_bank import MemoryBank


def filled(scores, capacity=10):
    bank = MemoryBank(capacity, 2)
    for number, score in enumerate(scores):
        bank.add(np.array([number, 0], np.int16), score)
    return bank


def test_a_bank_keeps_the_best():
    scores = np.random.default_rng(0).normal(size=60)
    bank = filled(scores)
    assert set(bank.rows[:, 0]) == set(np.argsort(scores)[-10:])
    assert bank.best()[0] == scores.argmax()


def test_draws_follow_the_softmax_of_the_scores():
    bank = filled([-0.5, -1.0, -3.0, -0.2])
    rng = np.random.default_rng(1)
    allowed = np.array([True, True, True, False])
    drawn = np.array([bank.draw(allowed, rng)[0] for _ in range(8000)])
    expected = np.exp(bank.scores[:3]) / np.exp(bank.scores[:3]).sum()
    np.testing.assert_allclose(np.bincount(drawn, minlength=4)[:3] / 8000, expected, atol=0.02)
    assert 3 not in drawn


def test_a_known_row_gets_the_new_score():
    bank = filled([-1.0, -2.0])
    bank.add(np.array([1, 0], np.int16), -0.1)
    assert bank.scores.tolist() == [-1.0, -0.1]


def test_json_gives_the_same_bank():
    bank, other = filled([-1.0, -1 / 3]), MemoryBank(10, 2)
    other.load(bank.to_json())
    np.testing.assert_array_equal(other.rows, bank.rows)
    np.testing.assert_array_equal(other.scores, bank.scores)
    empty = MemoryBank(10, 2)
    empty.load(MemoryBank(10, 2).to_json())
    empty.add(np.array([1, 1], np.int16), 0.0)
    assert len(empty) == 1

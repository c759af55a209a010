from __future__ import annotations

from cli.front import print_front
from search.results import FrontMember


def _member(**changes):
    values = {
        "key": "abc",
        "config": {},
        "accuracy": 98.765,
        "report_accuracy": None,
        "predicted_ms": None,
        "measured_ms": 0.12345,
        "p10_ms": 0.1,
        "p90_ms": 0.2,
        "bytes": 12345,
        "float_bytes": 40000,
        "macs": 10,
        "precisions": {"fp32": 2, "w8a8": 14},
        "feasible": True,
    }
    return FrontMember(**(values | changes))


def test_sizes_are_kilobytes_and_layers_are_counted_by_bits(capsys):
    print_front("cpu", [_member()])
    row = capsys.readouterr().out.splitlines()[3].split()
    assert row == ["98.77", "0.1235", "12.3", "14/2", "abc"]


def test_fine_tuned_accuracy_is_a_column_where_there_is_any(capsys):
    print_front("cpu", [_member(finetuned_accuracy=99.123), _member()])
    _, header, _, first, second, *_ = capsys.readouterr().out.splitlines()
    assert header.split("  ")[:2] == ["accuracy %", "fine-tuned %"]
    assert first.split()[:3] == ["98.77", "99.12", "0.1235"]
    assert second.split()[:2] == ["98.77", "0.1235"]
    print_front("cpu", [_member()])
    assert "fine-tuned" not in capsys.readouterr().out


def test_it_says_when_nothing_meets_the_constraints(capsys):
    print_front("cpu", [_member(feasible=False)])
    assert "no verified subnet meets the constraints; these are the closest" in (
        capsys.readouterr().out
    )
    print_front("cpu", [_member()])
    assert "closest" not in capsys.readouterr().out

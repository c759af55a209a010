from __future__ import annotations

import json

import pytest

from cli.output import print_json, print_pairs, print_table, table


def test_table_aligns_numbers_right_and_text_left():
    text = table(("name", "ms"), [("a", "0.5"), ("longer", "12.25"), ("b", "")])
    assert text.splitlines() == [
        "name       ms",
        "------  -----",
        "a         0.5",
        "longer  12.25",
        "b",
    ]


def test_long_cells_stay_whole_in_a_pipe(capsys):
    print_table(("a", "b"), [("x" * 200, "y" * 200)], "none")
    assert "x" * 200 + "  " + "y" * 200 in capsys.readouterr().out


def test_an_empty_table_is_a_sentence(capsys):
    print_table(("a",), [], "Nothing here.")
    assert capsys.readouterr().out == "Nothing here.\n"


def test_json_is_one_document_without_nan(capsys):
    print_json({"a": [1.5, None]})
    assert json.loads(capsys.readouterr().out) == {"a": [1.5, None]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        print_json(float("nan"))


def test_pairs_are_aligned(capsys):
    print_pairs([("a", "1"), ("long", "2")])
    assert capsys.readouterr().out == "a     1\nlong  2\n"

from __future__ import annotations

import pytest

from mar_pipeline import text


@pytest.mark.parametrize(
    ("word", "meant"),
    [("verfy", "verify"), ("VERIFY", "verify"), ("archive", "Archive"), ("nothing", None), ("", None)],
)
def test_a_misspelt_word_is_known_again_whatever_its_case(word: str, meant: str | None) -> None:
    assert text.near(word, ["download", "Archive", "verify"]) == meant


def test_a_tables_columns_are_as_wide_as_their_longest_cell() -> None:
    lines = text.table(["a", "name"], [["1", "x"], ["333", "yy"]]).splitlines()
    assert lines == ["a    name", "1    x", "333  yy"]


@pytest.mark.parametrize(("most", "last"), [(None, "9"), (10, "9"), (9, "and 1 more"), (1, "and 9 more")])
def test_a_table_that_is_cut_short_says_how_many_rows_are_left_out(most: int | None, last: str) -> None:
    lines = text.table(["n"], [[str(number)] for number in range(10)], most).splitlines()
    assert lines[-1] == last
    assert len(lines) == 1 + 10 if most in (None, 10) else 1 + (most or 0) + 1


def test_a_rows_width_counts_only_where_it_is_shown() -> None:
    assert text.table(["n", "m"], [["1", "2"], ["a long one", "3"]], 1) == "n  m\n1  2\nand 1 more"

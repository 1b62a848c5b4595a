"""Configs that are wrong by construction, some hundreds: each is an error with exit code 2, every line of which says
where in the file, and none is taken for right or ends in a traceback."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from mar_pipeline.__main__ import run
from tests.unit.config.damages import (
    CONTRADICTIONS,
    MODES,
    OF_ROWS,
    STRANGE,
    WRONG,
    Row,
    Rows,
    least,
    right,
    with_all,
    with_wrong,
    written,
)
from tests.unit.config.text_damages import OF_TEXT, Spoilt, joined

FILE = "c.yaml"
LINE = re.compile(rf"(?:error: | {{7}}){re.escape(FILE)}:(\d+): \S")
# All that YAML 1.1 takes for the end of a line.
BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]")
LONGEST = 500

# `make test` tries the same quarter each time and `make test-all` all of them; "nightly" draws new ones.
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "quick")
SHARE = {"quick": 0.25, "whole": 1, "nightly": 10}[PROFILE]


def many(count: int = 60) -> settings:
    """So many examples, in the share of the profile."""
    return settings(
        derandomize=PROFILE != "nightly",
        deadline=None,
        database=None,
        max_examples=max(1, int(count * SHARE)),
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """The command sets how SIGTERM is taken."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def planned(raw: bytes) -> tuple[int, str, str]:
    """`mar plan` of a file in this process: its exit code, what it printed, and what it complained of."""
    Path(FILE).write_bytes(raw)
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = run(["plan", FILE, "--cache", "cache", "--offline"])
    return code, out.getvalue(), err.getvalue()


def refused(raw: bytes, code: int, out: str, err: str) -> set[int]:
    """The lines of the file that an error names. AssertionError if it is not as every error about a config is."""
    assert code == 2, (code, err, raw[:2000])
    assert out == ""
    rows = err.removesuffix("\n").split("\n")
    count = max(1, len(BREAK.split(raw.decode("utf-8-sig", errors="replace"))))
    found = set()
    for row in rows:
        match = LINE.match(row)
        assert match, (row[:LONGEST], raw[:2000])
        assert 1 <= int(match[1]) <= count, (row[:LONGEST], raw[:2000])
        assert len(row) <= LONGEST, (row[:LONGEST], raw[:2000])
        assert row.isprintable(), (row, raw[:2000])
        assert "pydantic" not in row
        assert "Error" not in row
        found.add(int(match[1]))
    return found


def at_its_line(rows: Rows) -> None:
    lines, blamed = written(rows)
    raw = joined(lines)
    found = refused(raw, *planned(raw))
    assert found & blamed, (found, blamed, lines)


@pytest.mark.parametrize(("section", "key"), WRONG)
def test_every_wrong_value_is_an_error_at_its_line(section: str, key: str) -> None:
    for value in WRONG[section, key]:
        at_its_line(with_wrong(least("seq_classification"), section, key, value))


@pytest.mark.parametrize("task", MODES)
def test_every_contradiction_is_an_error_at_a_line_of_it(task: str) -> None:
    for tasks, together in CONTRADICTIONS:
        if task in tasks:
            at_its_line(with_all(least(task), together))


@pytest.mark.parametrize("section", ["", "handler", "archive", "verify"])
def test_every_key_that_there_is_not_is_an_error_at_its_line(section: str) -> None:
    for key in STRANGE:
        at_its_line((*least("text_generation"), Row(section, key, "1", bad=True)))


@st.composite
def _wrong(draw: st.DrawFn, kind: str) -> Rows:
    return OF_ROWS[kind](draw, draw(right()))


@st.composite
def _unreadable(draw: st.DrawFn, kind: str) -> Spoilt:
    return OF_TEXT[kind](draw, written(draw(right()))[0])


@given(data=st.data())
@many(40)
@pytest.mark.parametrize("task", MODES)
def test_what_is_damaged_here_is_right_before(task: str, data: st.DataObject) -> None:
    rows = data.draw(right(task))
    code, _, err = planned(joined(written(rows)[0]))
    assert code == 0, (err, written(rows)[0])
    assert "error" not in err


@given(data=st.data())
@many()
@pytest.mark.parametrize("kind", OF_ROWS)
def test_one_wrong_setting_is_an_error_at_its_line(kind: str, data: st.DataObject) -> None:
    at_its_line(data.draw(_wrong(kind)))


@given(data=st.data())
@many()
@pytest.mark.parametrize("kind", OF_TEXT)
def test_what_no_config_can_be_is_an_error_with_a_line(kind: str, data: st.DataObject) -> None:
    raw, blamed = data.draw(_unreadable(kind))
    found = refused(raw, *planned(raw))
    assert blamed is None or blamed in found, (found, blamed, raw[:2000])


@st.composite
def spoilt(draw: st.DrawFn) -> bytes:
    """A config with two to five things wrong, of the same kind or of several."""
    rows: Rows = draw(right())
    for damage in draw(st.lists(st.sampled_from(sorted(OF_ROWS)), min_size=2, max_size=4)):
        rows = OF_ROWS[damage](draw, rows)
    lines, _ = written(rows)
    kind = draw(st.sampled_from(["", "", *sorted(OF_TEXT)]))
    indented = any(line.startswith("  ") for line in lines)
    if kind and (indented or kind not in ("a tab", "indented by one")):
        return OF_TEXT[kind](draw, lines)[0]
    return joined(lines)


@given(raw=spoilt())
@many(200)
def test_many_things_wrong_at_once_are_an_error_all_the_same(raw: bytes) -> None:
    found = refused(raw, *planned(raw))
    event(f"{min(len(found), 4)} lines")


@given(raw=spoilt())
@many(6)
def test_the_command_says_the_same_in_a_process_of_its_own(raw: bytes) -> None:
    expected = planned(raw)
    done = subprocess.run(
        [sys.executable, "-m", "mar_pipeline", "plan", FILE, "--cache", "cache", "--offline"],
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout.decode(), done.stderr.decode()) == expected
    refused(raw, *expected)

"""The ordeals in a small form; `make torture` does them in full."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from .crowds import LAST, ONE, OWN
from .plan import SMALL, samples, timed
from .report import Report
from .samples import Sample

pytestmark = pytest.mark.slow

Endure = Callable[[str], Report]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    return samples(tmp_path_factory.mktemp("samples"))


@pytest.fixture
def endure(built: list[Sample], tmp_path: Path) -> Endure:
    """An ordeal in its small form. Fails the test for its faults, and skips it for its reason to do nothing."""

    def endured(name: str) -> Report:
        report = timed(name, tmp_path, built, SMALL)
        if report.skipped:
            pytest.skip(report.skipped)
        assert not report.faults, "\n\n".join(report.faults)
        return report

    return endured


def test_a_build_that_was_killed_at_any_moment_goes_on_and_leaves_nothing_behind(endure: Endure) -> None:
    counts = endure("kills").counts
    assert counts["kills"] + counts["came too late"] == SMALL.kills + 6 * SMALL.boundaries
    assert counts["kills"] > counts["came too late"]
    assert counts["looks at the model store"] > 10 * counts["kills"]


def test_builds_that_begin_together_make_each_thing_once(endure: Endure) -> None:
    counts = endure("crowds").counts
    assert [counts[f"crowds {kind}"] for kind in (OWN, ONE, LAST)] == [SMALL.crowds] * 3
    assert counts[f"{ONE}: verify made by 1 of 8"] == SMALL.crowds


def test_a_full_disk_is_said_whichever_stage_meets_it_and_nothing_is_lost(endure: Endure) -> None:
    counts = endure("disks").counts
    met = {what.rpartition(" ")[2] for what in counts if "met by" in what and counts[what]}
    assert {"download", "serialize", "handler", "archive", "verify", "model_store"} <= met


def test_a_cache_that_cannot_be_written_to_serves_what_it_has(endure: Endure) -> None:
    counts = endure("frozen").counts
    assert counts["builds from a read-only cache"] == 8
    assert counts["builds across file systems"] == 4


def test_a_byte_that_changed_in_the_cache_never_makes_a_wrong_archive(endure: Endure) -> None:
    counts = endure("damage").counts
    assert counts["found"] + counts["harmless"] == SMALL.places
    assert counts["found"] > counts["harmless"]


def test_a_download_that_breaks_off_anywhere_goes_on_from_there(endure: Endure) -> None:
    counts = endure("downloads").counts
    assert counts["kills"] + counts["drops"] + counts["came too late"] == SMALL.downloads
    assert counts["kills"] > counts["came too late"]


def test_a_clock_that_was_wrong_costs_nothing_but_time(endure: Endure) -> None:
    assert endure("clocks").counts["clocks"] == 5

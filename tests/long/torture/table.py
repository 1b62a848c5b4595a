"""The figures of a run, as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.machine import facts, line

from .report import Report


def markdown(reports: Sequence[Report], seed: int) -> str:
    """A table with all that was counted, what was at fault below it, and the machine."""
    lines = ["| ordeal | counted | number |", "| --- | --- | --- |"]
    for report in reports:
        if report.skipped:
            lines.append(f"| {report.name} | skipped: {report.skipped} | - |")
            continue
        lines += [f"| {report.name} | **faults** | **{len(report.faults)}** |"]
        lines += [f"| | {what} | {number} |" for what, number in sorted(report.counts.items())]
        lines += [f"| | seconds | {report.seconds:.0f} |"]
    for report in reports:
        if report.faults:
            lines += ["", f"## Faults: {report.name}", ""]
            lines += [f"- {fault.replace(chr(10), chr(10) + '      ')}" for fault in report.faults]
    return "\n".join([*lines, "", f"{line(facts())}; seed {seed}"])

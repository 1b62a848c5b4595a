"""Verify: the finished archive answers its samples; so does the original model; the two must agree."""

from __future__ import annotations

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .. import resolve
from ..archive import Archive
from ..child import stop, work
from ..compare import Difference, differences
from ..errors import InputError, MismatchError
from ..stage import Build, Job, Stage
from ..store import Damaged
from ..tree import Entry
from .archive import filename
from .archive import sha256 as archive_digest

REPORT = "report.json"


def params(build: Build) -> dict[str, Any]:
    return {
        "tolerance": resolve.tolerance(build),
        "without_transformers": build.config.handler.save_mode != "pretrained",
        "eager": {
            name: value
            for name, value in resolve.load_settings(build, build.store.root).items()
            if name != "checkpoint"
        },
    }


def run(job: Job) -> Iterable[Entry]:
    build, tolerance = job.build, resolve.tolerance(job.build)
    if not build.intact("archive"):
        raise Damaged(filename(build))
    archive = Archive(job.lay_out("archive") / filename(build))
    unpacked = archive.unpack(job.scratch / "model")
    requests = json.loads((unpacked / "samples.json").read_text(encoding="utf-8"))
    ask = {
        "folder": str(unpacked),
        "requests": requests,
        "batched": True,
        "without_transformers": params(build)["without_transformers"],
    }
    reference = {
        **resolve.load_settings(build, job.lay_out("download")),
        "task": build.config.task.name,
        "requests": requests,
        "settings": build.params["handler"]["settings"]["handler"]
        | {"do_lower_case": build.config.handler.do_lower_case},
    }
    # Two processes at once, since most of either is importing torch.
    with ThreadPoolExecutor(2) as pool:
        answering = pool.submit(work, "answer", ask, scratch=job.scratch / "answer", progress=job.progress)
        expecting = pool.submit(work, "eager", reference, scratch=job.scratch / "eager")
        try:
            try:
                got = answering.result()
            except Exception:
                expecting.result()  # what the original says of itself tells more than what its archive does
                raise
            _refuse_bad_samples(requests, got)
            expected = expecting.result()
        except BaseException:
            stop()
            raise
    found: list[Difference] = []
    for index, wanted in enumerate(expected):
        found += differences(f"sample {index}", wanted, got["single"][index], tolerance)
        found += differences(f"sample {index} in a batch", wanted, got["batched"][index], tolerance)
    report = {
        "name": archive.name,
        "sha256": archive_digest(build),
        "verified": not found,
        "notes": got["notes"],
        "tolerance": tolerance,
        "largest_difference": largest(expected, got["single"], got["batched"]),
        "samples": [
            {"request": request, "expected": wanted, "answer": answer}
            for request, wanted, answer in zip(requests, expected, got["single"], strict=True)
        ],
    }
    if found:
        raise MismatchError(
            f"{archive.name} does not answer like the original: {len(found)} differences (tolerance {tolerance:g}).",
            table(found),
        )
    (job.folder / REPORT).write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return []


def _refuse_bad_samples(requests: list[Any], got: dict[str, Any]) -> None:
    for request, answer, status in zip(requests, got["single"], got["statuses"], strict=True):
        if status != 200:
            raise InputError(
                f"The archive's handler refused a sample request ({status}): {json.dumps(answer, ensure_ascii=False)}",
                f"The request was {json.dumps(request, ensure_ascii=False)[:200]}.",
                "Mend verify.samples: they are requests in the task's format.",
            )


def largest(expected: list[Any], *answers: list[Any]) -> float:
    """The largest difference between two scores that were compared."""
    worst = 0.0
    for given in answers:
        for wanted, got in zip(expected, given, strict=True):
            for difference in differences("", wanted, got, -1.0):
                if isinstance(difference.wanted, float) and isinstance(difference.got, float):
                    worst = max(worst, abs(difference.wanted - difference.got))
    return worst


def table(found: list[Difference], most: int = 12) -> str:
    """The differences as lines of text, the first `most` of them."""
    rows = [
        ("where", "original model", "archive"),
        *((d.where, d.show(d.wanted), d.show(d.got)) for d in found[:most]),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines + ([f"and {len(found) - most} more"] if len(found) > most else []))


STAGE = Stage(
    name="verify",
    version=2,
    inputs=("download", "archive"),
    params=params,
    tools=lambda build: ("torch", "transformers", "tokenizers", *resolve.merging(build)),
    run=run,
)

"""Sends an archive's samples to a real TorchServe, and compares its answers with the handler's own."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent
from typing import Any

from ..answers.compare import Difference, differences, table
from ..answers.tolerance import FLOAT32, of_scores
from ..archive import formats
from ..archive.reader import PROVENANCE, Archive, digest
from ..errors import InputError, MismatchError
from ..files import strict_json
from ..files.opening import read_text
from ..model import checkpoint
from .logs import WorkerDied
from .properties import served_name
from .server import Server

_ROUNDS = 3  # how often all samples are sent at once, so that TorchServe batches them


@dataclass(frozen=True, kw_only=True)
class SmokeResult:
    """The result of an archive whose answers all agree: the number of requests, the median time of one request alone in
    milliseconds, and the seconds from the server's start until a worker is READY."""

    name: str
    requests: int
    median_ms: float
    ready_seconds: float


def smoke(
    archives: Sequence[Path],
    answer: Callable[[Path, list[Any]], list[Any]],
    report: Callable[[str], None] = lambda _: None,
    *,
    tolerances: Mapping[Path, float] | None = None,
    ready_timeout: float = 300.0,
    keep: Path | None = None,
) -> list[SmokeResult]:
    """Serve `archives` from one TorchServe and send each its own samples: alone, at once, and as raw bytes.

    `answer(archive, requests)` returns the expected answers, for example those of the archive's handler in this
    process. `tolerances` has the largest allowed difference of scores by archive; the default depends on dtype and
    hardware. `report` gets a line for each step. `keep` is a folder for the logs if a model does not load.

    Raises MismatchError with a table if answers differ, WorkerDied if an archive does not load, and InputError if there
    are no archives, an archive has no samples, or TorchServe or Java is missing.
    """
    if not archives:
        raise InputError("There is no archive to try.", fix="Build one: mar build CONFIG")
    names = [served_name(path.name) for path in archives]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(
            f"Two of the archives would be served as {twice}.",
            fix="Try them one after the other, each with `mar smoke FILE.mar`.",
        )
    requests = {path: samples(path) for path in archives}
    with Server(archives, keep=keep) as server, shown(report):
        report(f"TorchServe starts on {server.client.address}")
        # The expected answers are computed while the server starts: both take seconds, on different cores.
        with ThreadPoolExecutor(1) as pool:
            pending = {path: pool.submit(answer, path, requests[path]) for path in archives}
            try:
                server.wait_ready(names, timeout=ready_timeout)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
            expected = {path: future.result() for path, future in pending.items()}
        results = []
        for path in archives:
            name = served_name(path.name)
            report(f"{name} is READY after {server.ready[name]:.1f} s")
            tolerance = (tolerances or {}).get(path) or tolerance_of(path)
            results.append(_try(server, name, requests[path], expected[path], tolerance))
            report(f"{name}: {results[-1].requests} answers agree, {results[-1].median_ms:.1f} ms each")
    return results


def tolerance_of(archive: Path) -> float:
    """The tolerance of an archive's scores: the one that it was built with (verify.tolerance), else the default. In 16
    bits, a batch or another device changes the rounding."""
    content = Archive(archive)
    try:
        recorded = content.json(PROVENANCE)["settings"]
        if "verify" in recorded:
            return _finite(recorded["verify"]["tolerance"])
        settings = recorded["handler"]["handler"]
        dtype, hardware = str(settings["dtype"]), str(settings["hardware"])
    except (LookupError, TypeError, ValueError, OverflowError):  # an archive of another tool, or a changed one
        return FLOAT32["cpu"]
    config = content.json("config.json") if dtype == "auto" else None
    if isinstance(config, dict):
        dtype = checkpoint.dtype(config)
    return of_scores(dtype, hardware if hardware in FLOAT32 else "cpu", casts=False)


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{number} is not a tolerance")
    return number


@dataclass(frozen=True, kw_only=True)
class Original:
    """The original model's answers to an archive's samples, and the largest allowed difference of scores."""

    answers: list[Any]
    tolerance: float


def unverified(archive: Path) -> Original | None:
    """The original model's answers, from the report of an archive that was not verified when it was built; None for a
    verified archive. Raises InputError if an unverified archive's report is missing or cannot be read."""
    provenance = Archive(archive).json(PROVENANCE)
    if not isinstance(provenance, dict) or not provenance.get("unverified"):
        return None
    name = formats.stem(archive.name)
    file = archive.parent.parent / "reports" / f"{name}.json"
    try:
        report = strict_json.loads(read_text(file))
        if report["sha256"] == digest(archive):
            if report["verified"]:
                return None
            answers = [sample["expected"] for sample in report["samples"]]
            return Original(answers=answers, tolerance=_finite(report["tolerance"]))
    except (OSError, ValueError, LookupError, TypeError, OverflowError):
        pass
    raise InputError(
        f"{archive} was not verified where it was built, and its report is not beside it.",
        f"{file} has the original model's answers. It is missing or damaged, or is the report of another archive.",
        "Copy the whole output folder of the build.",
    )


@contextmanager
def shown(report: Callable[[str], None]) -> Iterator[None]:
    """Show a dead worker's traceback before its error."""
    try:
        yield
    except WorkerDied as error:
        report(error.details)
        raise


def _try(server: Server, name: str, requests: list[Any], expected: list[Any], tolerance: float) -> SmokeResult:
    if len(expected) != len(requests):
        raise InputError(
            f"There are {len(expected)} expected answers to the {len(requests)} samples of {server.archives[name]}.",
            "Its report, or its samples.json, was changed after the build.",
            "Copy the whole output folder of the build again.",
        )
    differing: list[Difference] = []
    times: list[float] = []

    def ask(label: str, number: int, body: Any, content_type: str | None = "application/json") -> list[Difference]:
        begin = time.perf_counter()
        reply = server.client.predict(name, body, content_type)
        if label == "alone":
            times.append(time.perf_counter() - begin)
        where = f"sample {number + 1} {label}"
        if reply.status_code >= 500 and server.logs.deaths(name):
            raise server.logs.death(name, "died at a request")
        # The expected answer to a bad sample is an error too, so the body is compared, whatever the status.
        try:
            got = reply.json()
        except ValueError:
            got = reply.text
        return differences(where, expected[number], got, tolerance)

    for number, body in enumerate(requests):
        differing += ask("alone", number, body)
    for number, body in enumerate(requests):
        differing += ask("as bytes", number, json.dumps(body).encode(), None)
    many = [(number, body) for _ in range(_ROUNDS) for number, body in enumerate(requests)]
    with ThreadPoolExecutor(min(len(many), 32)) as pool:
        for those in pool.map(lambda item: ask("with others", *item), many):
            differing += those
    if differing:
        rows = indent(table(differing, "expected", "TorchServe"), "  ")
        raise MismatchError(
            f"TorchServe's answers differ from the handler's own for {name}:\n{rows}",
            "Batching, the body's format or the server's Python changed the answers.",
            f"Compare with `mar run {server.archives[name]}`, and `mar doctor` for the versions.",
        )
    return SmokeResult(
        name=name,
        requests=2 * len(requests) + len(many),
        median_ms=1000 * statistics.median(times),
        ready_seconds=server.ready[name],
    )


def samples(archive: Path) -> list[Any]:
    """The requests in an archive's samples.json. Raises InputError if it is not an archive or has no samples."""
    try:
        requests = Archive(archive).json("samples.json")
    except ValueError as error:
        raise InputError(f"samples.json in {archive} is not JSON: {error}.", fix="Build it again.") from None
    if not isinstance(requests, list) or not requests:
        raise InputError(
            f"{archive} has no samples.json with requests.",
            "Archives of other tools have none.",
            "Build it with `mar build`, which packs samples; `mar run FILE.mar --input TEXT` asks it without them.",
        )
    return requests

"""Verify: the finished archive and the original model answer the same samples and tokenize the same texts; they must
agree."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from ...answers import tokenization
from ...answers.agreement import compared
from ...archive.reader import Archive
from ...cache.store import Damaged
from ...config.build_config import BuildConfig
from ...config.values import COMPILED
from ...errors import InputError, StageError
from ...files.tree import scan
from ...host import toolchain
from ...host.chips import CHIPS
from ...portable.graph import NO_CHIP
from ...text import visible
from ...workers.client import stop, work
from .. import resolve
from ..build import Inputs, Job
from ..stage import Kept, Stage
from .archive import sha256 as archive_digest

REPORT = "report.json"


def params(inputs: Inputs) -> dict[str, Any]:
    load = resolve.load_settings(inputs, inputs.build.store.root)
    return {
        # A result that was accepted unverified does not do for a build that wants it verified.
        **({"allow_unverified": inputs.build.options.allow_unverified} if _is_compiled(inputs.config) else {}),
        "tolerance": resolve.tolerance(inputs),
        "without_transformers": inputs.config.handler.save_mode != "pretrained",
        "eager": {name: value for name, value in load.items() if name != "checkpoint"},
    }


def _is_compiled(config: BuildConfig) -> bool:
    return config.handler.hardware in COMPILED


def _worker(config: BuildConfig) -> dict[str, Any]:
    """Where an archive's handler runs: here, or where a graph was compiled."""
    if not _is_compiled(config):
        return {}
    python = toolchain.started(config.hardware.python)
    return {"python": python, "script": toolchain.WORKER}


def run(job: Job) -> Kept:
    inputs, tolerance = job.inputs, float(job.params["tolerance"])
    archive = Archive(job.lay_out("archive") / job.build.filename)
    unpacked = archive.unpack(job.scratch / "model")
    _refuse_other_bytes(inputs, unpacked)
    requests = json.loads((unpacked / "samples.json").read_text(encoding="utf-8"))
    corpus = _corpus(job, unpacked)
    ask = _original(job, requests, corpus)
    got, original = _answers(job, unpacked, requests, corpus, ask)
    expected = original["answers"]
    follows, notes = tokenization.follows(unpacked)
    notes += tokenization.beyond(original["tokens"]["beyond"])
    report: dict[str, Any] = {"name": archive.name, "sha256": archive_digest(inputs), "tolerance": tolerance}
    report |= {"tokenizer": follows, "notes": notes}
    if "unverified" in got:
        report |= {"verified": False, "unverified": got["unverified"]}
        answers: list[dict[str, Any]] = [{} for _ in expected]
    else:
        # First, since other tokens are why answers differ.
        counts = tokenization.compared(archive.name, unpacked, corpus, original["tokens"], got["tokens"])
        report |= {
            "verified": True,
            "notes": [*got["notes"], *notes],
            "tokenized": counts,
            **compared(archive.name, original["model"], expected, got, tolerance, lambda: ask()["answers"]),
        }
        answers = [{"answer": answer} for answer in got["single"]]
    report["samples"] = [
        {"request": request, "expected": wanted, **answer}
        for request, wanted, answer in zip(requests, expected, answers, strict=True)
    ]
    text = visible(json.dumps(report, indent=2, ensure_ascii=False))
    (job.folder / REPORT).write_text(text + "\n", encoding="utf-8")
    return Kept()


def _corpus(job: Job, unpacked: Path) -> dict[str, Any]:
    """The texts whose tokens are compared."""
    inputs, task = job.inputs, job.config.task
    return tokenization.asked(
        (unpacked, job.lay_out("download")),
        pairs=task.pairs,
        talks=task.generates,
        # The others read a longer text in windows, or refuse it.
        max_length=None if task.per_token else resolve.max_length(inputs),
    )


def _original(job: Job, requests: list[Any], corpus: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    """A function that asks the original model, in a fresh process."""
    inputs, config = job.inputs, job.config
    reference = {
        **resolve.load_settings(inputs, job.lay_out("download")),
        "source": _folder(inputs),
        "task": config.task.name,
        "requests": requests,
        "corpus": corpus,
        "settings": resolve.packed_handler(inputs) | {"do_lower_case": config.handler.do_lower_case},
    }
    return lambda: dict(work("eager", reference, scratch=job.scratch / "eager", limits=job.limits))


def _folder(inputs: Inputs) -> str | None:
    """The user's own folder, in which transformers itself chooses the weights; None for a checkpoint that is elsewhere,
    or of which a folder's files are only a part: an adapter, or a model in sentence-transformers' first layout."""
    path = inputs.config.model.path
    if path is None or not all((path / entry.path).exists() for entry in inputs.tree("download")):
        return None
    return str(path)


def _answers(
    job: Job,
    unpacked: Path,
    requests: list[Any],
    corpus: dict[str, Any],
    original: Callable[[], dict[str, Any]],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the archive answers, and what the original model does. Raises InputError for a sample that the archive's
    handler refuses or the original model cannot answer, StageError if the archive alone fails, or cannot be run here
    and that is not accepted."""
    config = job.config
    ask = {
        "folder": str(unpacked),
        "requests": requests,
        "batched": True,
        "corpus": corpus,
        "without_transformers": job.params["without_transformers"],
    }
    # Two processes at once, since most of either is importing torch.
    with ThreadPoolExecutor(2) as pool:
        answering = pool.submit(
            work,
            "answer",
            ask,
            scratch=job.scratch / "answer",
            progress=job.progress,
            limits=job.limits,
            **_worker(config),
        )
        expecting = pool.submit(original)
        try:
            # The original model's own error explains more than the archive's, which may never come.
            wait((answering, expecting), return_when=FIRST_EXCEPTION)
            if expecting.done() or answering.exception() is not None:
                expecting.result()
            got = answering.result()
            if "unverified" not in got:
                _refuse_bad_samples(requests, got, expecting.result, own=config.verify.samples is not None)
            elif not job.build.options.allow_unverified:
                raise _unverified(config, got["unverified"], got["said"])
            return got, expecting.result()
        except BaseException:
            stop()
            raise


def _refuse_other_bytes(inputs: Inputs, unpacked: Path) -> None:
    """Check every file of the archive by the SHA-256 that its stage recorded; packing checked only its CRC-32. Raises
    Damaged, after removing what is wrong from the cache."""
    for entry in (entry for stage in ("serialize", "handler") for entry in inputs.tree(stage)):
        file = unpacked / entry.path
        if file.is_file() and scan(file, entry.path).sha256 == entry.sha256:
            continue
        name, store = inputs.build.filename, inputs.build.store
        store.warn(f"The cache is damaged: {name} holds another {entry.path} than was recorded. It is rebuilt.")
        if whole := inputs.tree("archive").get(name):
            store.discard(whole)
        store.intact(entry)  # which removes a blob that is not
        if place := inputs.places.get(entry.path):
            store.digests.forget(Path(place))
        raise Damaged(entry.path)


def _unverified(config: BuildConfig, reason: str, error: str) -> StageError:
    chip = CHIPS[config.handler.hardware]
    then = " and try it there with `mar smoke`" if chip.name == "neuronx" else ""
    return StageError(
        f"{config.archive.name} cannot be verified here: {reason}.",
        f"What {chip.package} compiles runs on {chip.machines} alone."
        if reason == NO_CHIP
        else f"Its handler: {error}.",
        f"Build it on such a machine, or take it unverified with --allow-unverified{then}.",
    )


def _refuse_bad_samples(requests: list[Any], got: dict[str, Any], original: Callable[[], Any], *, own: bool) -> None:
    """Raises InputError or StageError if the archive's handler does not answer a sample. `original` returns when the
    original model has answered all of them, or raises its error; `own`: the samples are the user's."""
    for number, (request, answer, status) in enumerate(zip(requests, got["single"], got["statuses"], strict=True), 1):
        if status == 200:
            continue
        reply = json.dumps(answer, ensure_ascii=False)
        asked = f"The request was {json.dumps(request, ensure_ascii=False)[:200]}."
        if status < 500:
            raise InputError(
                f"The archive's handler refused sample {number} ({status}): {reply}",
                asked,
                "Correct verify.samples: they are requests in the task's format."
                if own
                else "Give samples that suit the model in verify.samples, or more room with handler.max_length.",
            )
        original()  # the original model's own error explains more than the archive's
        raise StageError(
            f"The archive's handler does not answer sample {number}, which the original model does ({status}): {reply}",
            f"{asked} {' '.join(got['errors'][:1])}".rstrip(),
            "Give samples that suit the model in verify.samples, or lower handler.max_length if only long texts fail.",
        )


STAGE = Stage(
    name="verify",
    version=5,
    inputs=("download", "serialize", "handler", "archive"),
    params=params,
    tools=lambda inputs: ("torch", "transformers", "tokenizers", *resolve.merging(inputs)),
    run=run,
)

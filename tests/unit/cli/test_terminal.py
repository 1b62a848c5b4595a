"""Nothing that comes from an archive, a checkpoint, a config or the environment acts on the terminal: control
characters are planted in all places, and no output of any command has one."""

from __future__ import annotations

import io
import json
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mar_pipeline import __main__ as command
from mar_pipeline.answers import rehearsal
from mar_pipeline.builder.runner import Done
from mar_pipeline.builder.status import Reason, Status
from mar_pipeline.cache.store import Record, Store
from mar_pipeline.cli import console, progress
from mar_pipeline.errors import MismatchError, StageError
from mar_pipeline.files.tree import Tree
from mar_pipeline.serving import smoke
from mar_pipeline.serving.logs import WorkerDied
from mar_pipeline.text import visible
from mar_pipeline.workers.client import WorkerCrash
from tests.unit.cli.test_cli import checkpoint

EVIL = (
    "\x1b[31mX\x1b]0;own\x07\x08\x00\x85\x9b2J\x9d0;y\x9c\x7f\u202egnp\u202c\u2066z\u2069\u2028\u2029"
    "[link=file:///x]y[/link][red]\\"
)
FILE = EVIL.replace("\x00", "").replace("/", ":")
"""The same, as a file's name may have it."""
WORDS = FILE.replace("\ud83d", "")
DIRECTIONS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def acts(letter: str) -> bool:
    """Whether a terminal may act on a character instead of showing it, by Unicode's own data."""
    category, direction = unicodedata.category(letter), unicodedata.bidirectional(letter)
    return (category in ("Cc", "Zl", "Zp", "Cs") and letter not in "\t\n") or direction in DIRECTIONS


def test_every_character_that_a_terminal_may_act_on_is_escaped_and_no_other() -> None:
    for letter in map(chr, range(0x110000)):
        assert (visible(letter) != letter) == acts(letter), hex(ord(letter))


class Terminal(io.TextIOWrapper):
    """A stream in UTF-8 that keeps what is written, as a terminal or a file."""

    def __init__(self, *, tty: bool = False) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8")
        self.tty = tty

    def isatty(self) -> bool:
        return self.tty

    def shown(self) -> str:
        self.flush()
        return self.buffer.getvalue().decode("utf-8")  # type: ignore[attr-defined,no-any-return]


@contextmanager
def terminal(*, tty: bool = False) -> Iterator[tuple[Terminal, Terminal]]:
    with pytest.MonkeyPatch.context() as patch:
        streams = Terminal(tty=tty), Terminal(tty=tty)
        patch.setattr(sys, "stdout", streams[0])
        patch.setattr(sys, "stderr", streams[1])
        yield streams


def output(*words: object, tty: bool = False) -> tuple[int, str, str]:
    """The exit code of a command, and what it prints, in which nothing acts on a terminal."""
    with terminal(tty=tty) as (out, err):
        code = command.run([str(word) for word in words])
        shown, told = out.shown(), err.shown()
    assert not set(filter(acts, shown + told)), (words, ascii(shown + told))
    return code, shown, told


def planted(folder: Path, text: str = EVIL, name: str = FILE) -> Path:
    """An archive in a folder, with `text` wherever a text can be, and files called `name`."""
    (folder / "MAR-INF").mkdir(parents=True)
    model = {"modelName": text, "modelVersion": text, "handler": "h.py", "configFile": "c.yaml", "description": text}
    manifest = {"model": {**model, "requirementsFile": "r.txt"}, "createdOn": text, "archiverVersion": text}
    (folder / "MAR-INF" / "MANIFEST.json").write_text(json.dumps({**manifest, "runtime": text, text: text}))
    (folder / "h.py").write_text(f"# {name}\ndef handle(data, context):\n    return data\n")
    (folder / "c.yaml").write_text(f"{json.dumps(text)}: {json.dumps(text)}\nhandler: {{{json.dumps(text)}: 1}}\n")
    (folder / "r.txt").write_text(f"{name}\n--index-url {name}\n")
    (folder / "index_to_name.json").write_text(json.dumps({"0": text, "1": text + "b"}))
    (folder / "samples.json").write_text(json.dumps([{"text": text}]))
    (folder / "config.json").write_text(json.dumps({"model_type": text, "architectures": [text], text: text}))
    about = {"source": {"kind": text, text: text}, "versions": {text: text}, "unverified": text}
    about |= {"checkpoint": {text: text}, "tokenizer": {text: text}, "files": {text: text}, "settings": {text: text}}
    (folder / "provenance.json").write_text(json.dumps(about))
    (folder / name).mkdir()
    for suffix in (".py", ".bin", ".json", ".pkl"):
        (folder / name / f"{name}{suffix}").write_text("(((")
    return folder


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("planted")
    return planted(root / f"a{FILE}"), planted(root / "b", EVIL + "2", FILE + "2")


@pytest.mark.parametrize("words", [[], ["--json"]])
def test_archives_are_examined(archives: tuple[Path, Path], words: list[str]) -> None:
    first, second = archives
    for asked in (["inspect", first], ["diff", first, second], ["check", first], ["check", second]):
        _, out, _ = output(*asked, *words)
        assert "\\u001b[31mX" in out or "x1b[31mX" in out
    if words:
        described = json.loads(output("inspect", first, "--json")[1])
        assert described["labels"] == {"0": EVIL, "1": EVIL + "b"}
        assert described["manifest"]["model"]["modelName"] == EVIL
        assert described["provenance"]["source"] == {"kind": EVIL, EVIL: EVIL}


@pytest.mark.parametrize("tty", [False, True])
@pytest.mark.parametrize("words", [[], ["--json"]])
def test_answers_and_explanations_are_shown(
    archives: tuple[Path, Path], here: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], tty: bool
) -> None:
    assert here
    answer: Any = {"label": EVIL, EVIL: [EVIL]}
    replies = {"single": [answer], "statuses": [400], "notes": [EVIL], "hints": [EVIL]}
    monkeypatch.setattr(rehearsal, "answers", lambda *_, **__: replies)
    monkeypatch.setattr(rehearsal, "is_foreign", lambda _: True)
    if not tty:
        code, out, told = output("run", archives[0], "--input", EVIL, *words)
        assert (code, json.loads(out)) == (2, answer)
        assert "note: \\u001b[31mX" in told
        code, _, told = output("explain", archives[0], "--input", EVIL, *words)
        assert (code, "\\u001b[31mX" in told) == (2, True)
    replies["statuses"] = [200]
    monkeypatch.setattr(rehearsal, "is_foreign", lambda _: False)
    word = {"text": EVIL, "field": EVIL, "start": 0, "end": len(EVIL), "importance": 0.5}
    answer = {"target": EVIL, "value": 1.0, "baseline": 0.5, "delta": 0.0, "tokens": [], "words": [word]}
    replies["single"] = [answer]
    asked = json.dumps({EVIL: EVIL})
    if not tty:
        code, out, _ = output("explain", archives[0], "--input", asked, *words)
        assert (code, "\\u001b[31mX" in out) == (0, True)
        assert not words or json.loads(out) == answer
        return
    # On a terminal it has rich's own colours, and none of the text's.
    with terminal(tty=True) as (stdout, _):
        monkeypatch.setenv("TERM", "xterm-256color")
        assert command.run(["explain", str(archives[0]), "--input", asked, *words]) == 0
        shown = stdout.shown()
    assert words or "\x1b[" in shown
    for part in ("\x1b[31mX", "\x1b]", "\x07", "\x9b", "\u202e", "\u2028"):
        assert part not in shown


@pytest.mark.parametrize(
    "error",
    [
        WorkerCrash(f"Traceback (most recent call last):\nRuntimeError: {EVIL}"),
        RuntimeError(EVIL),
        StageError(EVIL, EVIL, EVIL),
        OSError(28, EVIL, EVIL),
        PermissionError(13, EVIL, EVIL),
        ImportError(EVIL),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_and_tracebacks_are_shown(
    archives: tuple[Path, Path], here: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    assert here

    def failing(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(rehearsal, "answers", failing)
    code, out, told = output("run", archives[0])
    assert (code in (1, 2, 3), out, "\\u001b[31mX" in told) == (True, "", True)


def test_smoke_shows_differences_and_dead_workers(
    archives: tuple[Path, Path], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results: list[Any] = [
        MismatchError(f"differ:\n{EVIL}", EVIL, EVIL),
        WorkerDied(EVIL, EVIL, EVIL, details=EVIL, log=here / FILE),
        [smoke.SmokeResult(name=EVIL + "\nerror: none", requests=1, median_ms=1.0, ready_seconds=1.0)],
    ]

    def tried(_paths: object, _answer: object, report: Any, **_: object) -> Any:
        report(EVIL)
        if isinstance(results[0], Exception):
            with smoke.shown(report):
                raise results.pop(0)
        return results[0]

    monkeypatch.setattr(smoke, "smoke", tried)
    monkeypatch.setattr(smoke, "unverified", lambda _: None)
    for expected in (4, 3):
        code, _, told = output("smoke", archives[0])
        assert (code, told.count("\\u001b[31mX") >= 3) == (expected, True)
    # A line break in a name begins no line of its own.
    assert "\nerror" not in output("smoke", archives[0])[1]
    assert json.loads(output("smoke", archives[0], "--json")[1])["archives"][0]["name"] == EVIL + "\nerror: none"


CONFIG = "handler: {{mode: {mode}, model_name: {model}{more}}}\narchive: {{name: {name}}}\n"


def config(folder: Path, called: str = "c.yaml", /, **values: str) -> Path:
    """A config, with the values as YAML's double-quoted texts."""
    texts = {"mode": "sequence_classification", "model": "./model", "name": "a", **values}
    more = texts.pop("more", "")
    file = folder / called
    file.write_text(CONFIG.format(more=more, **{key: json.dumps(text) for key, text in texts.items()}))
    return file


def test_configs_and_options_are_quoted(here: Path) -> None:
    checkpoint(here / "model")
    evil, seen = json.dumps(EVIL), 0
    asked: list[list[object]] = [
        ["plan", config(here, "1.yaml", mode=EVIL)],
        ["plan", config(here, "2.yaml", model=EVIL)],
        ["plan", config(here, "3.yaml", name=EVIL)],
        ["plan", config(here, "4.yaml", more=f", {evil}: 1")],
        ["plan", config(here, "5.yaml", more=f", save_mode: {evil}")],
        ["plan", config(here, "6.yaml", more=f", max_length: {evil}")],
        ["plan", config(here, "7.yaml", more=f", revision: {evil}")],
        ["plan", config(here, f"8{FILE}.yaml", mode="x")],
        ["plan", config(here, "9.yaml", more=f", trust_remote_code: {evil}")],
        ["plan", here / f"{FILE}.yaml"],
        ["plan", "--task", WORDS],
        ["plan", "--model", WORDS],
        ["plan", "--model", f"./{FILE}"],
        ["plan", "--task", "seq_classification", "--set", WORDS],
        ["plan", "--task", "seq_classification", "--set", f"handler.max_length={WORDS}"],
        ["plan", "--task", "seq_classification", "--set", f"handler.{WORDS}=1"],
        ["plan", "--task", "seq_classification", "--force", WORDS],
        ["plan", "--task", "seq_classification", "--name", WORDS],
        ["plan", "--model", "org/name", "--revision", WORDS],
        ["plan", f"--{WORDS}"],
        [WORDS],
        ["build", config(here, "10.yaml", mode=EVIL)],
        ["lock", config(here, "11.yaml", mode=EVIL)],
        ["release", config(here, "12.yaml", mode=EVIL)],
        ["inspect", here / FILE],
        ["check", here / FILE],
        ["check", here / "model", "--key", here / FILE],
        ["sign", here / FILE, "--key", here / FILE],
        ["diff", here / FILE, here / FILE],
        ["run", here / FILE],
        ["run", here / FILE, "--input", f"@{FILE}"],
        ["explain", here / FILE, "--input", "a", "--html", here / FILE / "a"],
        ["smoke", here / FILE],
        ["smoke", "--out", here / FILE],
        ["serve", "--out", here / FILE],
        ["cache", "gc", "--max-size", WORDS],
        ["cache", "gc", "--older-than", WORDS],
        ["plan", "--task", "seq_classification", "--cache", here / "model" / "config.json" / FILE],
    ]
    for words in asked:
        code, _, told = output(*words)
        assert code, words
        seen += any(f"{escape}[31mX" in told for escape in ("x1b", "u001b", "\\e"))
        if words[0] in ("inspect", "check", "run"):
            assert output(*words, "--json")[:2] == (code, "")
    # What cannot be a model's name at all is not repeated.
    assert seen == len(asked) - 3


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": EVIL},
        {"architectures": [EVIL]},
        {"id2label": {"0": EVIL, "1": EVIL}},
        {"num_labels": EVIL},
        {"max_position_embeddings": EVIL},
        {"problem_type": EVIL},
        {"torch_dtype": EVIL},
        {"quantization_config": {"quant_method": EVIL}},
        {"auto_map": {"AutoConfig": EVIL}},
        {"_name_or_path": EVIL},
        {EVIL: {EVIL: EVIL}},
    ],
    ids=lambda changes: next(iter(changes)) if EVIL not in changes else "any key",
)
def test_checkpoints_are_quoted(here: Path, changes: dict[str, Any]) -> None:
    folder = checkpoint(here / "model", **changes)
    (folder / "README.md").write_text(f"---\nlicense: {json.dumps(EVIL)}\n---\n")
    (folder / f"{FILE}.bin").write_text("")
    for words in (
        ["plan"],
        ["plan", "--json"],
        ["plan", "--task", "seq_classification", "--set", "handler.num_labels=3"],
    ):
        output(*words, "--model", "./model")


def test_a_text_of_several_lines_looks_like_no_message_of_ours(capsys: pytest.CaptureFixture[str]) -> None:
    for say in (console.note, console.warning):
        say("a label\nerror: nothing\nnote: b")
    console.failed(StageError("a", "b\nerror: c"))
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in lines if not line.startswith(" ")] == ["note", "warning", "error"]


@pytest.mark.parametrize(
    "change",
    [
        {"model": EVIL},
        {"settings": {EVIL: EVIL}},
        {"license": EVIL},
        {"sources": [{"kind": EVIL, EVIL: EVIL}]},
        {"sources": [{"kind": "hub", "commit": EVIL}]},
        {"files": {EVIL: {"sha256": EVIL, "size": 1}}},
        {"files": {"config.json": {"sha256": EVIL, "size": 1}}},
        {"format": EVIL},
    ],
    ids=lambda change: next(iter(change)),
)
def test_locks_are_quoted(here: Path, change: dict[str, Any]) -> None:
    checkpoint(here / "model")
    file = config(here)
    assert output("lock", file)[0] == 0
    lock = json.loads(Path("c.yaml.lock").read_text())
    Path("c.yaml.lock").write_text(json.dumps({**lock, **change}))
    for words in (["plan", file], ["plan", file, "--locked"], ["lock", "--check", file], ["lock", file, "--json"]):
        output(*words)


def test_caches_are_listed(here: Path) -> None:
    store = Store(here / "cache")
    with store.in_use(), store.scratch() as scratch:
        (scratch / "a").write_text("a")
        tree = Tree.of(store.take(scratch))
        record = Record(
            key="c" * 64, stage="archive", tree=tree.digest, material={}, subject=f"{EVIL}#{EVIL}", model=EVIL
        )
        store.commit(record, tree)
        store.touch(record, f"{EVIL}#{EVIL}")
    assert "\\u001b[31mX" in output("cache", "list")[1]
    listed = json.loads(output("cache", "list", "--json")[1])["results"]
    assert [(one["model"], one["configs"][0]["archive"]) for one in listed] == [(EVIL, EVIL)]
    assert output("cache", "verify")[0] == 0
    code, out, _ = output("cache", "gc", "--cache", here / FILE)
    assert (code, "\\u001b[31mX" in out) == (0, True)


def test_the_environment_is_quoted(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert here
    for name in ("JAVA_HOME", "HF_HOME", "TMPDIR", "MAR_CACHE", "OMP_NUM_THREADS", "HF_ENDPOINT", "SOURCE_DATE_EPOCH"):
        with monkeypatch.context() as patch:
            patch.setenv(name, WORDS)
            for words in (["doctor"], ["doctor", "--json"], ["plan", "--model", "org/name"]):
                output(*words)


def test_progress_is_shown_without_markup_of_a_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    for tty in (False, True):
        with terminal(tty=tty) as (_, err), console.escaping(), progress.events() as events:
            build: Any = None
            events.started(build, Status("download", None, False, (Reason("unread", EVIL),)))
            events.progress(EVIL, 1, 2)
            console.warning(EVIL)
            print(EVIL)
            if tty:
                events._progress.refresh()  # type: ignore[union-attr]
            events.finished(build, Done("download", True, 0.0, None, ()))
        shown = err.shown()
        assert "\\u001b[31mX" in shown
        assert "[link=file:" in shown
        for part in ("\x1b[31mX", "\x1b]", "\x07", "\x08", "\x9b", "\u202e", "\u2028"):
            assert part not in shown

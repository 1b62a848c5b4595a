"""Output on terminals that cannot encode it: texts are escaped, and JSON stays JSON."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mar_pipeline import __main__ as command
from mar_pipeline.answers import rehearsal
from tests.support.mar import Mar

LABELS = {"0": "négatif", "1": "中立", "2": "😀 ok"}
ESCAPED = {"ascii": ("n\\u00e9gatif", "\\u4e2d\\u7acb", "\\ud83d\\ude00 ok")}
ESCAPED["latin-1"] = ("négatif", *ESCAPED["ascii"][1:])
TERMINALS: list[tuple[str, dict[str, str]]] = [
    ("ascii", {"PYTHONIOENCODING": "ascii"}),
    ("latin-1", {"PYTHONIOENCODING": "latin-1"}),
    ("ascii", {"PYTHONIOENCODING": "", "LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
]


def archive(folder: Path, labels: dict[str, str]) -> Path:
    (folder / "MAR-INF").mkdir(parents=True)
    model = {"modelName": "m", "handler": "h.py", "modelVersion": "1"}
    (folder / "MAR-INF" / "MANIFEST.json").write_text(json.dumps({"model": model}))
    (folder / "h.py").write_text("def handle(data, context):\n    return data\n")
    (folder / "index_to_name.json").write_text(json.dumps(labels))
    return folder


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("ärchive 中")
    return archive(root / "ä", LABELS), archive(root / "b", {**LABELS, "1": "neutral"})


def output(folder: Path, encoding: str, *words: Any, **env: str) -> tuple[int, str, str]:
    mar = Mar(folder)
    done = subprocess.run(
        [sys.executable, "-m", "mar_pipeline", *map(str, words)],
        cwd=folder,
        env={**os.environ, **mar.env, **env},
        capture_output=True,
        check=False,
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode(encoding)
    return done.returncode, done.stdout.decode(encoding), done.stderr.decode(encoding)


@pytest.mark.parametrize(("encoding", "env"), TERMINALS, ids=["ascii", "latin-1", "POSIX"])
def test_what_a_terminal_cannot_encode_is_escaped_in_every_command(
    archives: tuple[Path, Path], tmp_path: Path, encoding: str, env: dict[str, str]
) -> None:
    first, second = archives
    code, out, _ = output(tmp_path, encoding, "inspect", first, **env)
    assert code == 0
    assert all(text in out for text in ESCAPED[encoding]), out
    # A tree is drawn with what there is.
    assert "+-- " in out
    assert "\\u25" not in out
    code, out, _ = output(tmp_path, encoding, "inspect", first, "--json", **env)
    assert json.loads(out)["labels"] == LABELS
    code, out, _ = output(tmp_path, encoding, "diff", first, second, **env)
    assert code == 5
    assert ESCAPED[encoding][1] in out
    code, out, _ = output(tmp_path, encoding, "diff", first, second, "--json", **env)
    assert "中立" in json.dumps(json.loads(out), ensure_ascii=False)
    assert output(tmp_path, encoding, "check", first, **env)[0] == 0
    code, _, err = output(tmp_path, encoding, "build", "--model", "/nowhere/中", **env)
    # Without UTF-8, Python reads a name's bytes as they are.
    assert (code, any(text in err for text in ("\\u4e2d", "\\udce4\\udcb8\\udcad"))) == (2, True), err
    assert output(tmp_path, encoding, "inspect", first, "--nönsense", **env)[0] == 2


class Terminal(io.TextIOWrapper):
    """Standard output, in an encoding."""

    def __init__(self, encoding: str) -> None:
        super().__init__(io.BytesIO(), encoding=encoding)

    def shown(self) -> str:
        self.flush()
        return self.buffer.getvalue().decode(self.encoding)  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize("words", [[], ["--json"]])
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_answers_and_explanations_are_shown_in_every_encoding(
    archives: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, encoding: str, words: list[str]
) -> None:
    text = "😀 中立 négatif \ud83d"
    answer = {"label": text, "score": 0.5}
    replies = {"single": [answer], "statuses": [200], "notes": [], "hints": [text]}
    monkeypatch.setattr(rehearsal, "answers", lambda *_, **__: replies)
    monkeypatch.setattr(rehearsal, "is_foreign", lambda _: False)
    monkeypatch.setattr(sys, "stderr", Terminal(encoding))
    monkeypatch.setattr(sys, "stdout", Terminal(encoding))
    assert command.run(["run", str(archives[0]), "--input", "a", *words]) == 0
    assert json.loads(sys.stdout.shown()) == answer  # type: ignore[attr-defined]
    word = {"text": text, "field": "text", "start": 0, "end": len(text), "importance": 0.5}
    told = {"target": text, "value": 1.0, "baseline": 0.5, "delta": 0.0, "tokens": [], "words": [word]}
    replies["single"] = [told]
    monkeypatch.setattr(sys, "stdout", Terminal(encoding))
    assert command.run(["explain", str(archives[0]), "--input", json.dumps(text), *words]) == 0
    shown = sys.stdout.shown()  # type: ignore[attr-defined]
    if words:
        assert json.loads(shown) == told
    else:
        assert ("😀" if encoding == "utf-8" else "\\ud83d\\ude00") in shown


def test_a_request_on_standard_input_is_utf_8_on_every_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    from mar_pipeline.cli.commands.run import read_input

    piped = io.TextIOWrapper(io.BytesIO('{"text": "très 中"}'.encode()), encoding="latin-1")
    monkeypatch.setattr(sys, "stdin", piped)
    assert read_input("-") == {"text": "très 中"}

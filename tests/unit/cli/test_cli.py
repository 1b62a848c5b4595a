"""The command line: what bad input gets, in words and exit codes. Nothing here loads a model."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from mar_pipeline import __main__ as command
from mar_pipeline.cache.store import Store
from mar_pipeline.cli.app import app

TASK = ["--task", "seq_classification"]


def checkpoint(folder: Path, **changes: object) -> Path:
    """A folder that looks like a checkpoint: sound files, no sense in the weights."""
    import struct

    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_type": "bert", "architectures": ["BertForSequenceClassification"], "max_position_embeddings": 64}
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    weights = {"classifier.weight": {"dtype": "F32", "shape": [2, 1], "data_offsets": [0, 8]}}
    header = json.dumps(weights).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    (folder / "tokenizer.json").write_text("{}")
    named = {"unk_token": "[UNK]", "cls_token": "[CLS]", "pad_token": "[PAD]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    return folder


def failing(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit code, and the error: one to three lines, no traceback, nothing on standard output."""
    code = command.run(arguments)
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    error = err[err.index("error:") :]
    assert 1 <= len(error.strip().splitlines()) <= 3, error
    return code, error


def test_help_documents_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--help"], ["build", "--help"], ["cache", "gc", "--help"]):
        assert command.run(words) == 0
        shown = " ".join(capsys.readouterr().out.split())
        assert "0 done, 1 unexpected, 2 bad input or settings, 3 a stage failed, 4 the archive does not answer" in shown


def test_a_folder_without_a_config_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "model").mkdir()
    code, error = failing(["build", *TASK, "--model", "./model"], capsys)
    assert (code, "config.json" in error) == (2, True)


def test_a_model_that_is_nowhere_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert here
    code, error = failing(["build", *TASK, "--model", "./nowhere"], capsys)
    assert (code, "nowhere" in error) == (2, True)
    code, error = failing(["build", *TASK, "--model", "org/name"], capsys)
    assert (code, "offline" in error) == (2, True)


def test_a_checkpoint_of_another_task_is_refused_with_the_right_one(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint(here / "model", architectures=["BertForTokenClassification"])
    code, error = failing(["build", *TASK, "--model", "./model"], capsys)
    assert code == 2
    assert "--task token_classification" in error


def test_a_checkpoint_without_tokenizer_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (checkpoint(here / "model") / "tokenizer.json").unlink()
    code, error = failing(["build", *TASK, "--model", "./model"], capsys)
    assert code == 2
    assert "no tokenizer" in error


def test_a_length_over_the_models_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint(here / "model")
    code, error = failing(["build", *TASK, "--model", "./model", "--set", "handler.max_length=65"], capsys)
    assert code == 2
    assert "64" in error


def test_labels_that_contradict_the_checkpoint_are_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint(here / "model", id2label={"0": "bad", "1": "good"})
    code, error = failing(["build", *TASK, "--model", "./model", "--set", "handler.num_labels=3"], capsys)
    assert code == 2
    assert "bad, good" in error


def test_cut_weights_are_refused_before_anything_runs(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = checkpoint(here / "model") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    code, error = failing(["build", *TASK, "--model", "./model"], capsys)
    assert code == 2
    assert "not a complete safetensors file" in error


def test_a_full_disk_is_a_failed_stage_with_what_to_do(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint(here / "model")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "blob")

    monkeypatch.setattr(Store, "take", full)
    code, error = failing(["build", *TASK, "--model", "./model"], capsys)
    assert code == 3
    assert "--cache" in error
    assert list((here / "cache" / "tmp").iterdir()) == []


def test_a_checkpoint_that_changes_during_the_build_is_noticed(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, take = checkpoint(here / "model"), Store.take

    def changing(self: Store, *arguments: object) -> object:
        (folder / "config.json").write_text("{}")
        return take(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Store, "take", changing)
    code, error = failing(["build", *TASK, "--model", "./model"], capsys)
    assert code == 3
    assert "config.json" in error


@pytest.mark.parametrize("command", ["run", "inspect"])
def test_an_archive_that_is_none_is_refused(here: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    (here / "a.mar").write_text("no zip")
    code, error = failing([command, "a.mar"], capsys)
    assert (code, "not an archive" in error) == (2, True)
    code, error = failing([command, "b.mar"], capsys)
    assert (code, "does not exist" in error) == (2, True)
    shutil.make_archive("c", "zip", here, "a.mar")
    code, error = failing([command, "c.zip"], capsys)
    assert (code, "MANIFEST" in error) == (2, True)


def test_an_unknown_stage_is_refused_with_the_nearest(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert here
    code, error = failing(["build", *TASK, "--force", "serialise"], capsys)
    assert (code, "serialize?" in error) == (2, True)


@pytest.mark.parametrize("words", [["cache", "gc", "--max-size", "big"], ["cache", "gc", "--older-than", "soon"]])
def test_sizes_and_ages_that_are_none_are_refused(
    here: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert here
    assert failing(words, capsys)[0] == 2


def test_usage_errors_end_with_2(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert here
    assert command.run(["build", "--no-such-option"]) == 2
    assert command.run(["build"]) == 2
    assert command.run(["build", "missing.yaml"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_an_unexpected_error_shows_its_traceback_and_ends_with_1(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint(here / "model")
    monkeypatch.setattr(Store, "find", lambda *_: 1 / 0)
    assert command.run(["build", *TASK, "--model", "./model"]) == 1
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_plan_does_nothing_and_says_what_would_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint(here / "model")
    assert command.run(["plan", *TASK, "--model", "./model", "--json"]) == 0
    (archive,) = json.loads(capsys.readouterr().out)["archives"]
    assert [stage["cached"] for stage in archive["stages"]] == [False] * 6
    assert archive["stages"][0]["reasons"] == ["config.json is new, or changed since it was last read"]
    assert not (here / "cache").exists()
    assert not (here / "build").exists()


def test_nothing_to_serve_or_to_smoke_is_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert here
    for name in ("serve", "smoke"):
        code, error = failing([name], capsys)
        assert (code, "mar build" in error) == (2, True)


def test_a_taken_port_is_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from mar_pipeline.serving.properties import config_properties, listeners, read_properties

    text = config_properties(["a.mar"])
    (here / "build" / "config").mkdir(parents=True)
    (here / "build" / "model-store").mkdir()
    (here / "build" / "model-store" / "a.mar").write_bytes(b"")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        (here / "build" / "config" / "config.properties").write_text(
            text.replace(str(listeners(read_properties(text))["inference_address"][1]), port)
        )
        code, error = failing(["serve"], capsys)
    assert code == 2
    assert port in error


def test_doctor_looks_at_everything_quickly(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert here
    command.run(["doctor", "--json"])
    names = {check["name"] for check in json.loads(capsys.readouterr().out)["checks"]}
    assert {"Python", "torch", "transformers", "Java", "memory"} <= names


def leaves(words: tuple[str, ...], group: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that does something, by the words after `mar`."""
    for name, one in group.commands.items():
        yield from leaves((*words, name), one) if hasattr(one, "commands") else [((*words, name), one)]


COMMANDS = dict(leaves((), typer.main.get_command(app)))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_commands_help_shows_an_example_that_the_parser_takes(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.run([*words, "--help"]) == 0
    shown = capsys.readouterr().out
    heading = re.search(r"^ *Examples?:\n", shown, re.MULTILINE)
    assert heading, shown
    examples = shown[heading.end() :].partition("\n\n")[0].splitlines()
    assert 1 <= len(examples) <= 2, examples
    for line in examples:
        typed = shlex.split(line, comments=True)
        assert tuple(typed[: len(words) + 1]) == ("mar", *words)
        COMMANDS[words].make_context("mar", typed[len(words) + 1 :])  # raises for what the parser refuses


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_shell_completion_is_a_script_for_the_users_shell(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell}")
    mar = shlex.quote(str(Path(sys.executable).with_name("mar")))
    variables = {**os.environ, "SHELL": str(shutil.which(shell)), "HOME": str(tmp_path)}
    # Typer asks the operating system which shell it was started from; `true` keeps that shell from becoming `mar`.
    shown = subprocess.run(
        [shell, "-c", f"{mar} --show-completion {shell}; true"],
        env=variables,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "_MAR_COMPLETE=complete_" + shell in shown.stdout, shown
    assert subprocess.run([shell, "-n"], input=shown.stdout, text=True, check=False).returncode == 0
    installed = subprocess.run(
        [shell, "-c", f"{mar} --install-completion; true"], env=variables, capture_output=True, text=True, check=True
    )
    assert f"{shell} completion installed in {tmp_path}" in installed.stdout, installed


def test_the_completion_knows_the_commands(here: Path) -> None:
    mar = str(Path(sys.executable).with_name("mar"))
    asked = {"_MAR_COMPLETE": "complete_bash", "COMP_WORDS": "mar cache ", "COMP_CWORD": "2"}
    done = subprocess.run([mar], cwd=here, env={**os.environ, **asked}, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["list", "gc", "verify"]

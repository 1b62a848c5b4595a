"""The advice in errors fits what was typed, and leads somewhere. Nothing here loads a model."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest

from mar_pipeline import __main__ as command
from mar_pipeline.builder.failures import explained
from mar_pipeline.cache.store import Record, Store
from mar_pipeline.errors import StageError
from mar_pipeline.files.tree import Tree
from mar_pipeline.workers import probe
from tests.unit.cli.test_cli import checkpoint, failing

Capture = pytest.CaptureFixture[str]
CONFIG = "handler:\n  mode: seq_classification\n  model_name: ./model\n"


@pytest.fixture
def here(here: Path) -> Path:
    checkpoint(here / "model")
    (here / "c.yaml").write_text(CONFIG)
    return here


def test_a_setting_is_an_option_where_there_is_no_config(here: Path, capsys: Capture) -> None:
    assert here
    _, error = failing(["build", "--model", "./model", "--set", "handler.max_length=65"], capsys)
    assert "Set handler.max_length to 64 or less" in error
    assert error.endswith("Without a config file: --set handler.max_length=VALUE\n")
    _, error = failing(["build", "c.yaml", "--set", "handler.max_length=65"], capsys)
    assert "--set" not in error


def test_the_value_of_a_setting_is_in_its_option(here: Path, capsys: Capture) -> None:
    model = checkpoint(here / "pickled")
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    _, error = failing(["plan", *shlex.split("--task seq_classification --model ./pickled")], capsys)
    (option,) = re.findall(r"--set (\S+)", error)
    assert option == "handler.allow_pickle=true"
    assert command.run(["plan", *shlex.split(f"--task seq_classification --model ./pickled --set {option}")]) == 0


@pytest.mark.parametrize("verb", ["build", "lock", "release"])
def test_an_unknown_task_is_named_in_the_config_or_by_an_option(here: Path, capsys: Capture, verb: str) -> None:
    checkpoint(here / "model", architectures=["BertModel"])
    Path("c.yaml").write_text(CONFIG.replace("  mode: seq_classification\n", ""))
    if verb == "release":
        pytest.importorskip("cyclonedx")
    _, error = failing([verb, "c.yaml"], capsys)
    assert "handler.mode in a config" in error
    Path("c.yaml").write_text(CONFIG)
    assert command.run(["lock", "c.yaml"]) == 0


def test_a_packaged_config_is_not_to_be_locked(here: Path, capsys: Capture) -> None:
    assert here
    _, error = failing(["build", "--task", "seq_classification", "--locked"], capsys)
    assert error.endswith("mar lock CONFIG, with a config file of your own\n")
    _, error = failing(["build", "c.yaml", "--locked"], capsys)
    words = shlex.split(error.splitlines()[-1].partition(": mar ")[2])
    assert words == ["lock", "c.yaml"]
    assert command.run(words) == 0
    capsys.readouterr()
    assert command.run(["plan", "c.yaml", "--locked"]) == 0


def test_an_option_beside_a_lock_is_to_be_left_out(here: Path, capsys: Capture) -> None:
    checkpoint(here / "other")
    assert command.run(["lock", "c.yaml"]) == 0
    capsys.readouterr()
    _, error = failing(["plan", "c.yaml", "--locked", "--model", "./other"], capsys)
    assert "Leave the option out" in error


@pytest.mark.parametrize(
    "source",
    [{"kind": "hub", "repo": "x/y", "commit": "0" * 40}, {"kind": "url", "url": "s3://b/x"}, {"kind": "starter"}],
)
def test_a_lock_of_another_kind_of_source_is_refused(here: Path, capsys: Capture, source: dict[str, str]) -> None:
    assert command.run(["lock", "c.yaml"]) == 0
    lock = json.loads(Path("c.yaml.lock").read_text())
    Path("c.yaml.lock").write_text(json.dumps({**lock, "sources": [source]}))
    capsys.readouterr()
    _, error = failing(["plan", "c.yaml", "--locked"], capsys)
    assert f"the model is a folder, but was of the kind {source['kind']}" in error
    assert command.run(["plan", "c.yaml"]) == 0
    assert "c.yaml.lock is not used" in capsys.readouterr().err
    assert here


def test_code_that_can_change_is_pinned_where_the_config_is(here: Path, capsys: Capture) -> None:
    assert here
    code = ["--set", "handler.trust_remote_code=true"]
    _, error = failing(["plan", "--task", "seq_classification", "--model", "org/name", *code], capsys)
    assert "lock it: mar lock CONFIG, with a config file of your own. Without a config file: --set" in error
    _, error = failing(["plan", "c.yaml", "--model", "org/name", *code], capsys)
    assert error.endswith("lock it: mar lock c.yaml\n")


@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_what_forbids_the_network_is_named(
    here: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    assert here
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv(name, "1")
    _, error = failing(["plan", "--task", "seq_classification", "--model", "org/name"], capsys)
    assert name in error


@pytest.mark.parametrize("verb", ["serve", "smoke"])
def test_an_empty_output_folder_is_filled_by_the_command_in_the_advice(here: Path, capsys: Capture, verb: str) -> None:
    assert here
    _, error = failing([verb, "--out", "my builds"], capsys)
    words = shlex.split(error.splitlines()[-1].partition(": mar ")[2])
    assert words == ["build", "--task", "seq_classification", "--out", "my builds"]


def test_a_config_without_a_lock_is_not_said_to_differ_from_it(here: Path, capsys: Capture) -> None:
    assert here
    assert command.run(["lock", "--check", "c.yaml"]) == 2
    error = capsys.readouterr().err
    assert "error: c.yaml has no lock." in error
    assert command.run(shlex.split(error.splitlines()[-1].partition(": mar ")[2])) == 0
    assert command.run(["lock", "--check", "c.yaml"]) == 0


def test_an_output_folder_that_is_a_file_is_not_to_be_made_writable(here: Path, capsys: Capture) -> None:
    assert here
    _, error = failing(["serve", "--out", "c.yaml"], capsys)
    assert "--out c.yaml is a file." in error
    build = SimpleNamespace(out=Path("c.yaml"), store=SimpleNamespace(root=Path("cache")))
    with pytest.raises(StageError, match="use --cache and --out for folders"), explained(build, "model_store"):
        Path("c.yaml").mkdir()


def test_a_file_of_the_wrong_kind_is_named_by_its_kind(here: Path, capsys: Capture) -> None:
    (here / "a.mar").write_bytes(b"PK\x03\x04" + bytes(2_000_000))
    for words, expected in {
        ("build", "a.mar"): "a.mar:1: is an archive, not a config; see `mar run` and `mar inspect`",
        ("run", "c.yaml"): "If it is a config, build it: mar build c.yaml",
        ("check", "model"): "If it is a model's folder, build its archive: mar build --model model",
        ("check", "."): "Name the archive itself; those of a build are in the folder model-store.",
        ("build", "--model", "./c.yaml"): "if it is a config: mar build ./c.yaml",
        ("run", "none.mar"): "Check its path, or build it: mar build CONFIG",
        ("run", "a.mar", "--input", "@none"): "--input @none cannot be read: No such file or directory.",
    }.items():
        _, error = failing(list(words), capsys)
        assert expected in error


def test_a_damaged_cache_names_the_option_that_repairs_it(here: Path, capsys: Capture) -> None:
    store = Store(here / "cache")
    with store.in_use(), store.scratch() as scratch:
        (scratch / "vocab.txt").write_text("the")
        tree = Tree.of(store.take(scratch))
        store.commit(Record(key="c" * 64, stage="handler", tree=tree.digest, material={}, subject="c#c"), tree)
    for entry in tree.entries:
        blob = store.blob(entry.sha256)
        blob.chmod(0o600)
        blob.write_bytes(b"damage")
    assert command.run(["cache", "verify"]) == 2
    assert "mar cache verify --repair removes them" in capsys.readouterr().out
    assert command.run(["cache", "verify", "--repair"]) == 0


@pytest.mark.parametrize(("attention", "advised"), [("eager", False), ("sdpa", True), (None, True)])
def test_eager_attention_is_advised_only_where_it_is_another(attention: str | None, advised: bool) -> None:
    model = SimpleNamespace(config=SimpleNamespace(_attn_implementation=attention))
    assert ("handler.attn_implementation: eager" in probe.advice(model)) == advised

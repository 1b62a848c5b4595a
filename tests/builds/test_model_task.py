"""The task that nobody says: told by the model itself, or asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mar_pipeline.cache.store import Store
from mar_pipeline.config import build_config
from mar_pipeline.config.build_config import BuildConfig, Overrides
from mar_pipeline.errors import InputError
from mar_pipeline.sources.task import task_lookup
from tests.support import ROOT, copied
from tests.support.mar import Mar
from tests.support.stand_ins.hub import Hub, running

CLASSES = {
    "BertForSequenceClassification": "seq_classification",
    "RobertaForTokenClassification": "token_classification",
    "DistilBertForQuestionAnswering": "question_answering",
    "GPT2LMHeadModel": "text_generation",
}
TASK_TYPES = {
    "SEQ_CLS": "seq_classification",
    "TOKEN_CLS": "token_classification",
    "QUESTION_ANS": "question_answering",
    "CAUSAL_LM": "text_generation",
}


def checkpoint(folder: Path, *names: str, **told: Any) -> Path:
    """A folder with the files of a model, and its config.json (or an adapter's) alone with anything in it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or ("config.json", "model.safetensors", "tokenizer.json"):
        (folder / name).write_text(json.dumps(told) if "config" in name else "")
    return folder


def adapter(folder: Path, **told: Any) -> Path:
    told = {"base_model_name_or_path": "org/base", **told}
    return checkpoint(folder, "adapter_config.json", "adapter_model.safetensors", **told)


def load(path: Path, text: str) -> BuildConfig:
    path.write_text(text)
    overrides = Overrides(lookup=task_lookup(Store(path.parent / "cache"), offline=True))
    return build_config.load(path, overrides)


def problems(path: Path, text: str) -> list[str]:
    with pytest.raises(InputError) as caught:
        load(path, text)
    return str(caught.value).splitlines()


@pytest.mark.parametrize(("name", "task"), CLASSES.items())
def test_a_config_without_a_mode_is_for_what_the_models_class_is_for(tmp_path: Path, name: str, task: str) -> None:
    checkpoint(tmp_path / "one", architectures=[name])
    found = load(tmp_path / "a.yaml", "handler: {model_name: one, save_mode: torchscript}")
    assert found.task.name == task
    assert found.handler.mode == found.task.mode
    assert found.handler.save_mode == "torchscript"


@pytest.mark.parametrize(("kind", "task"), TASK_TYPES.items())
def test_a_config_without_a_mode_is_for_what_an_adapter_was_trained_for(tmp_path: Path, kind: str, task: str) -> None:
    adapter(tmp_path / "one", task_type=kind)
    assert load(tmp_path / "a.yaml", "handler: {model_name: one}").task.name == task


def test_a_mode_that_is_said_is_asked_of_nobody(tmp_path: Path) -> None:
    checkpoint(tmp_path / "one", architectures=["BertForSequenceClassification"])
    text = "handler: {model_name: one, mode: token_classification}"
    assert load(tmp_path / "a.yaml", text).task.name == "token_classification"


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"architectures": ["BertModel"]}, "is unknown: its config names BertModel"),
        ({"architectures": ["BertForMaskedLM"]}, "names BertForMaskedLM"),
        ({"architectures": []}, "no architecture"),
        ({}, "no architecture"),
    ],
)
def test_a_model_that_tells_no_task_is_a_problem_at_the_line_of_the_section(
    tmp_path: Path, told: dict[str, Any], said: str
) -> None:
    checkpoint(tmp_path / "one", **told)
    (line,) = problems(tmp_path / "a.yaml", "minWorkers: 1\nhandler:\n  model_name: one\n")
    assert line.startswith(
        f"{tmp_path}/a.yaml:2: handler.mode: is missing, and the model's files do not show the task: "
    )
    assert said in line


def test_what_keeps_a_model_from_telling_is_said_in_a_line(tmp_path: Path) -> None:
    checkpoint(tmp_path / "one", "config.json")
    assert "has no model.safetensors" in problems(tmp_path / "a.yaml", "handler: {model_name: one}")[0]
    (tmp_path / "two").mkdir()
    assert "has no config.json" in problems(tmp_path / "a.yaml", "handler: {model_name: two}")[0]
    checkpoint(tmp_path / "three")
    (tmp_path / "three/config.json").write_text("{")
    assert "cannot be read as JSON" in problems(tmp_path / "a.yaml", "handler: {model_name: three}")[0]
    # Offline, and never seen.
    assert "is not in the Hugging Face cache" in problems(tmp_path / "a.yaml", "handler: {model_name: a/b}")[0]


def test_all_problems_of_a_config_are_told_together_those_of_the_models_task_too(tmp_path: Path) -> None:
    checkpoint(tmp_path / "one", architectures=["BertForQuestionAnswering"])
    lines = problems(
        tmp_path / "a.yaml",
        "batchSize: many\nhandler:\n  model_name: one\n  max_lenght: 9\n  aggregation_strategy: simple\n",
    )
    said = ("batchSize", "max_lenght: unknown key", "aggregation_strategy: is for token_classification")
    assert len(lines) == len(said)
    assert all(part in line for part, line in zip(said, lines, strict=True)), lines


def test_a_mode_is_missing_only_where_there_is_no_model_that_could_tell_it(tmp_path: Path) -> None:
    lines = problems(tmp_path / "a.yaml", "handler:\n  max_lenght: 9\n")
    assert [line.partition("handler.")[2].partition(":")[0] for line in lines] == ["mode", "model_name", "max_lenght"]
    # The Hub is asked when the rest of the file is right.
    (line,) = problems(tmp_path / "a.yaml", "handler:\n  model_name: org/model\n  max_lenght: 9\n")
    assert "max_lenght" in line
    # A name that means nothing is one problem, not two.
    (line,) = problems(tmp_path / "a.yaml", "handler:\n  model_name: ./gone\n")
    assert "no such folder" in line


def test_a_starter_tells_its_task(tmp_path: Path) -> None:
    assert load(tmp_path / "a.yaml", "handler: {model_name: 'starter:question_answering'}").task.name == (
        "question_answering"
    )


# The command line, in a process of its own.

STARTERS = ROOT / "pipeline" / "starters"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    folder = copied(STARTERS / "token_classification", tmp_path_factory.mktemp("hub") / "one")
    with running() as found:
        found.add("org/tagger", folder)
        yield found


def test_the_task_can_be_left_out_of_the_command(fresh_mar: Mar, tmp_path: Path) -> None:
    folder = copied(STARTERS / "question_answering", tmp_path / "one")
    assert fresh_mar.plan("--model", folder)["download"]["cached"] is False
    (tmp_path / "a.yaml").write_text("handler: {model_name: one}")
    assert fresh_mar.plan("a.yaml").keys() == fresh_mar.plan("--model", folder).keys()


@pytest.mark.slow
def test_a_model_of_the_hub_tells_its_task_by_its_config_alone(hub: Hub, fresh_mar: Mar) -> None:
    fresh_mar.env |= {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.address}
    before = len(hub.asked)
    fresh_mar.plan("--model", "org/tagger")
    fetched = [line.rpartition("/")[2] for line in hub.asked[before:] if "/resolve/" in line and line.startswith("GET")]
    assert fetched == ["config.json"]
    # And then it is known what it is for: nothing of the task that was not said is taken for it.
    done = fresh_mar("plan", "--model", "org/tagger", "--set", "handler.max_answer_length=5")
    assert done.returncode == 2
    assert "is for question_answering, not for token_classification" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "Neither a config, nor --task, nor --model is given"),
        (("--model", "encoder"), "is unknown: its config names BertModel"),
        (("--model", "untold"), "is unknown: its config names an adapter without a task_type"),
        (("--model", "./gone"), "--model: no such folder: ./gone"),
        (("--model", "empty"), "has no config.json"),
        (("--model", "org/never-seen"), "is not in the Hugging Face cache"),
        (("a.yaml",), "handler.mode: is missing, and the model's files do not show the task"),
    ],
)
def test_where_nothing_tells_the_task_the_next_step_is_said_in_three_lines(
    fresh_mar: Mar, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    checkpoint(tmp_path / "encoder", architectures=["BertModel"])
    adapter(tmp_path / "untold", task_type=None)
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.yaml").write_text("handler: {model_name: encoder}")
    done = fresh_mar("build", *words, "--out", tmp_path / "out")
    assert done.returncode == 2
    error = done.stderr[done.stderr.index("error:") :].strip()
    assert said in error
    assert len(error.splitlines()) <= 3
    assert not (tmp_path / "out").exists()

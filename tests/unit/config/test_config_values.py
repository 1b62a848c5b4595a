"""What a config means when nothing is wrong with it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from mar_pipeline.config import build_config as configs
from mar_pipeline.config.build_config import Overrides, load, load_all, packaged, packed, packed_handler
from mar_pipeline.errors import InputError
from mar_pipeline.tasks import TASKS
from tests.support import ROOT

# The handler sections that the reference example's README prints, on top of its model-config.yaml.
REFERENCE = """\
minWorkers: 1
maxWorkers: 1
handler:
  model_name: {model}
  mode: {mode}
  do_lower_case: true
  num_labels: {labels}
  save_mode: pretrained
  max_length: 150
  captum_explanation: true
  embedding_name: {embedding}
  BetterTransformer: false
  model_parallel: {parallel}
pt2:
  compile:
    enable: True
    backend: inductor
    mode: reduce-overhead
"""


@pytest.mark.parametrize(
    ("mode", "model", "labels", "embedding", "parallel", "task", "found_labels"),
    [
        ("sequence_classification", "bert-base-uncased", 2, "bert", "false", "seq_classification", 2),
        ("token_classification", "bert-base-uncased", 9, "bert", "false", "token_classification", 9),
        (
            "question_answering",
            "distilbert-base-cased-distilled-squad",
            0,
            "distilbert",
            "false",
            "question_answering",
            None,
        ),
        ("text_generation", "gpt2", 0, "gpt2", "false", "text_generation", None),
        ("text_generation", "gpt2", 0, "gpt2", "true", "text_generation", None),
    ],
    ids=["sequence", "token", "question", "generation", "generation-parallel"],
)
def test_the_reference_examples_configs_load_as_they_are(
    build, mode, model, labels, embedding, parallel, task, found_labels
):
    config = build(REFERENCE.format(mode=mode, model=model, labels=labels, embedding=embedding, parallel=parallel))
    assert config.task is TASKS[task]
    assert (config.model.kind, config.model.repo, config.archive.name) == ("hub", model, model)
    assert config.handler.num_labels == found_labels
    assert config.handler.max_length == 150
    assert config.handler.do_lower_case is True
    assert config.handler.captum_explanation is True
    assert config.pt2 == {"compile": {"enable": True, "backend": "inductor", "mode": "reduce-overhead"}}
    assert [note.split()[0] for note in config.notes] == ["handler.embedding_name"] + (
        ["handler.model_parallel"] if parallel == "true" else []
    )


def test_the_reference_examples_torchscript_form_loads(build):
    text = REFERENCE.format(
        mode="sequence_classification", model="bert-base-uncased", labels=2, embedding="bert", parallel="false"
    )
    config = build(text.partition("pt2:")[0].replace("pretrained", "torchscript"))
    assert config.handler.save_mode == "torchscript"
    assert [note.split()[0] for note in config.notes] == [
        "handler.embedding_name",
        "handler.captum_explanation",
    ]


@pytest.mark.parametrize(
    ("setting", "first_words"),
    [
        ("handler.embedding_name=roberta", "handler.embedding_name has no effect"),
        ("handler.batch_size=4", "handler.batch_size has no effect on a CPU"),
        ("handler.pack_weights=true", "handler.pack_weights has no effect here"),
        ("handler.model_parallel=true", "handler.model_parallel has no effect on a CPU"),
    ],
)
def test_a_setting_without_effect_is_a_note_of_one_line(build, setting, first_words):
    dtype = ["handler.dtype=bfloat16"] if "pack_weights" in setting else []
    (note,) = build(configs_text(), setting, *dtype).notes
    assert note.startswith(first_words)
    assert "\n" not in note


def test_better_transformer_has_no_effect_on_what_has_no_encoder_of_its_own(build):
    assert build(configs_text(), "handler.BetterTransformer=true").notes == ()
    (note,) = build(configs_text(), "handler.BetterTransformer=true", "pt2.compile={enable: true}").notes
    assert note.startswith("handler.BetterTransformer has no effect with pt2.compile")
    text = configs_text().replace("mode: sequence_classification", "mode: text_generation")
    (note,) = build(text, "handler.BetterTransformer=true").notes
    assert note.startswith("handler.BetterTransformer has no effect for text_generation")


def configs_text() -> str:
    return "handler:\n  mode: sequence_classification\n  model_name: starter:seq_classification\n"


def test_what_is_left_out_gets_the_documented_defaults(build):
    config = build()
    assert config.frontend == {
        "minWorkers": 1,
        "maxWorkers": 1,
        "batchSize": 8,
        "maxBatchDelay": 10,
        "responseTimeout": 120,
        "startupTimeout": 300,
        "deviceType": "cpu",
    }
    assert config.archive.model_dump() == {
        "name": "seq_classification",
        "version": "1.0",
        "format": "zip-store",
    }
    assert (config.verify.tolerance, config.verify.samples) == (None, None)
    assert (config.handler.save_mode, config.handler.max_length, config.handler.dtype) == (
        "pretrained",
        None,
        "float32",
    )
    assert (config.pt2, config.revision, config.notes) == (None, None, ())


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["minWorkers=3"], {"minWorkers": 3, "maxWorkers": 3}),
        (["maxWorkers=3"], {"minWorkers": 1, "maxWorkers": 3}),
        (["handler.hardware=gpu"], {"deviceType": "gpu"}),
        (["deviceType=GPU"], {"deviceType": "gpu"}),
        (["handler.hardware=gpu", "deviceIds=[0, 1]"], {"deviceType": "gpu", "deviceIds": [0, 1]}),
        (
            ["torchrun={nproc-per-node: 2, OMP_NUMBER_THREADS: 4}"],
            {"torchrun": {"nproc-per-node": 2, "OMP_NUMBER_THREADS": 4}},
        ),
        (["parallelType=TP"], {"parallelType": "tp"}),
        (["asyncCommunication=yes"], {"asyncCommunication": True}),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_front_end_keys_follow_from_what_is_given(build, settings, expected):
    frontend = build(configs_text(), *settings).frontend
    assert {key: frontend[key] for key in expected} == expected


def test_device_type_gpu_means_gpu_hardware(build):
    assert build(configs_text(), "deviceType=gpu").handler.hardware == "gpu"


@pytest.mark.parametrize("setting", ["dtype=float16", "attn_implementation=flash_attention_2"])
def test_what_needs_a_gpu_is_taken_with_one(build, setting):
    name, _, value = setting.partition("=")
    config = build(configs_text(), f"handler.{setting}", "handler.hardware=gpu")
    assert getattr(config.handler, name) == value


@pytest.mark.parametrize("word", ["1e-4", "'1e-4'", "0.0001", ".0001", "1.0e-4"])
def test_a_tolerance_can_be_written_as_people_write_numbers(build, word):
    assert build(configs_text(), f"verify.tolerance={word}").verify.tolerance == 1e-4


@pytest.mark.parametrize(
    ("text", "version"), [("1.10", "1.10"), ("2", "2"), ("1e2", "1e2"), ("'1.0'", "1.0"), ("v3", "v3")]
)
def test_a_version_is_taken_by_its_letters(build, text, version):
    assert build(configs_text() + f"archive:\n  version: {text}\n").archive.version == version
    assert build(configs_text(), f"archive.version={text}").archive.version == version


def test_a_revision_of_digits_is_taken_by_its_letters(build):
    text = "handler: {mode: text_generation, model_name: gpt2, revision: 0012345}"
    assert build(text).revision == "0012345"
    assert build(text, revision="12e4567").revision == "12e4567"


@pytest.mark.parametrize(
    "labels",
    ["[no, yes]", "{0: no, 1: yes}", "{1: 'yes', 0: 'no'}", "{'1': yes, '0': no}"],
)
def test_labels_keep_their_letters_and_their_order(build, labels):
    assert list(build(configs_text(), f"handler.labels={labels}").handler.labels.items()) == [
        (0, "no"),
        (1, "yes"),
    ]


def test_a_key_without_a_value_is_not_given(build):
    text = configs_text() + "  revision:\n  max_length: ~\narchive:\nbatchSize: null\n"
    config = build(text)
    assert (config.revision, config.handler.max_length, config.frontend["batchSize"]) == (None, None, 8)


def test_merge_keys_and_aliases_work_as_in_yaml(build):
    config = build(
        """\
        handler: &common
          mode: sequence_classification
          model_name: starter:seq_classification
          max_length: &length 64
        archive: {name: a}
        verify:
          samples: [{text: one}, &two {text: two}, {<<: *two, top_k: *length}]
        """
    )
    assert config.verify.samples == [{"text": "one"}, {"text": "two"}, {"text": "two", "top_k": 64}]


def test_both_names_of_a_task_are_understood_in_both_keys(build):
    for key in ("mode", "task"):
        for name in ("seq_classification", "sequence_classification"):
            text = f"handler: {{{key}: {name}, model_name: 'starter:seq_classification'}}"
            assert build(text).task is TASKS["seq_classification"]


class TestOverrides:
    def test_options_come_before_the_file(self, build):
        text = "handler: {task: question_answering, model_name: gpt2, revision: abc}"
        config = build(text, task="text_generation", model="distilbert/distilgpt2", save_mode="torchscript")
        assert config.task is TASKS["text_generation"]
        assert (config.model.repo, config.handler.save_mode) == ("distilbert/distilgpt2", "torchscript")

    def test_another_model_does_not_keep_the_files_revision(self, build):
        text = "handler: {mode: text_generation, model_name: gpt2, revision: abc}"
        assert build(text).revision == "abc"
        assert build(text, model="distilgpt2").revision is None
        assert build(text, model="distilgpt2", revision="v2").revision == "v2"

    def test_set_makes_sections_and_values_of_any_kind(self, build):
        config = build(
            configs_text(),
            "archive.name=mine",
            "pt2.compile.backend=inductor",
            'verify.samples=[{text: "a: b"}]',
            "handler.max_length = 64",
            "handler.max_length=32",
        )
        assert (config.archive.name, config.handler.max_length) == ("mine", 32)
        assert config.verify.samples == [{"text": "a: b"}]
        assert config.pt2 == {"compile": {"enable": True, "backend": "inductor"}}

    def test_set_nothing_gives_the_default_again(self, build):
        assert build(configs_text() + "batchSize: 2\n", "batchSize=").frontend["batchSize"] == 8


class TestPacked:
    @pytest.mark.parametrize(
        ("task", "own"),
        [
            ("seq_classification", {"top_k": 1}),
            ("token_classification", {"aggregation_strategy": "simple", "stride": 16}),
            ("question_answering", {"top_k": 1, "stride": 16, "max_answer_length": 30}),
            ("text_generation", {"generation": {"max_new_tokens": 32, "do_sample": False}}),
        ],
    )
    def test_the_handler_section_holds_what_the_task_needs(self, task, own):
        config = load(packaged(task))
        assert packed_handler(config, max_length=64) == {
            "mode": TASKS[task].mode,
            "save_mode": "pretrained",
            "hardware": "cpu",
            "max_length": 64,
            "model_name": f"starter:{task}",
            "dtype": "float32",
            "model_parallel": False,
            "captum_explanation": False,
            **own,
        }

    def test_the_text_is_the_same_twice_and_reads_back_as_it_was(self, build):
        text = configs_text() + "pt2: {compile: {enable: true, mode: default}}\n"
        made = [configs.dump(packed(c, packed_handler(c, max_length=64))) for c in (build(text), build(text))]
        assert made[0] == made[1]
        config = build(text)
        data = yaml.safe_load(made[0])
        assert data == packed(config, packed_handler(config, max_length=64))
        assert list(data) == [*config.frontend, "pt2", "handler"]

    def test_no_alias_is_written_for_a_value_that_occurs_twice(self):
        shared = [1]
        assert "&" not in configs.dump({"a": shared, "b": shared})

    def test_a_packed_config_is_itself_a_config(self, build):
        config = build(configs_text(), "handler.hardware=gpu", "handler.top_k=2")
        again = build(configs.dump(packed(config, packed_handler(config, max_length=64))))
        assert again.frontend == config.frontend
        assert again.handler.model_copy(update={"max_length": None}) == config.handler

    def test_a_folder_is_packed_by_its_last_name_only(self, build, folder):
        (folder / "secret" / "model").mkdir(parents=True)
        config = build(configs_text(), model="secret/model")
        assert packed_handler(config, max_length=8)["model_name"] == "model"


class TestSeveral:
    def test_each_file_gives_its_config_in_order(self):
        paths = [packaged(task) for task in reversed(TASKS)]
        assert [config.task.name for config in load_all(paths)] == list(reversed(TASKS))

    def test_two_archives_of_one_name_are_refused_with_both_files(self, write):
        one, two = write(configs_text(), "one.yaml"), write(configs_text(), "two.yaml")
        with pytest.raises(InputError, match=r"^one.yaml and two.yaml both make the archive seq_classification"):
            load_all([one, two])

    def test_names_that_differ_in_case_only_are_one_name(self, write):
        paths = [write(configs_text() + f"archive: {{name: {name}}}", f"{name}.yaml") for name in ("one", "ONE")]
        with pytest.raises(InputError, match="both make the archive"):
            load_all(paths)

    def test_the_same_file_twice_is_said_to_be_that(self, write):
        with pytest.raises(InputError, match=r"^c.yaml is given twice$"):
            load_all([write(configs_text())] * 2)

    def test_the_problems_of_all_files_come_together(self, write):
        paths = [write("batchSize: 0\n", "one.yaml"), Path("gone.yaml"), write("- 1\n", "two.yaml")]
        with pytest.raises(InputError) as caught:
            load_all(paths)
        text = str(caught.value)
        assert "one.yaml:1: batchSize" in text
        assert "gone.yaml: no such file" in text
        assert "two.yaml:1: holds a list" in text


class TestShipped:
    @pytest.mark.parametrize(
        "path",
        sorted((ROOT / "configs").rglob("*.yaml")),
        ids=lambda path: path.relative_to(ROOT / "configs").as_posix(),
    )
    def test_every_config_here_loads_without_a_note(self, path):
        assert load(path).notes == ()

    @pytest.mark.parametrize("task", TASKS)
    def test_each_task_has_a_config_for_its_starter(self, task):
        config = load(packaged(task))
        assert (config.task.name, config.model.kind, config.archive.name) == (task, "starter", task)
        assert packaged(TASKS[task].mode) == packaged(TASKS[task]) == packaged(task)

    def test_hub_configs_cover_every_task_and_are_pinned_or_say_that_they_are_not(self):
        files = sorted((ROOT / "configs" / "hub").glob("*.yaml"))
        found = load_all(files)
        assert {config.task.name for config in found} == set(TASKS)
        for config in found:
            pinned = len(config.revision) == 40 and int(config.revision, 16)
            assert pinned or "# pin it" in config.path.read_text(encoding="utf-8"), config.path

    def test_a_task_that_is_not_there_is_refused_with_a_near_one(self):
        with pytest.raises(InputError, match=r"No such task: seq_clasification; did you mean seq_class"):
            packaged("seq_clasification")

    def test_they_also_build_with_another_model(self):
        config = load(packaged("text_generation"), Overrides(model="gpt2"))
        assert (config.model.repo, config.archive.name) == ("gpt2", "gpt2")


def test_a_hundred_configs_load_in_well_under_a_second(write):
    text = (ROOT / "configs" / "text_generation.yaml").read_text(encoding="utf-8")
    paths = [write(text + f"archive: {{name: a{n}}}\n", f"{n}.yaml") for n in range(100)]
    load_all(paths[:1])
    start = time.perf_counter()
    load_all(paths)
    assert time.perf_counter() - start < 1


def test_nothing_heavy_is_imported():
    heavy = "{'torch', 'transformers', 'huggingface_hub', 'rich', 'typer', 'ts', 'numpy'}"
    code = f"import sys, mar_pipeline.config.build_config; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"

# ruff: noqa: E501 - the tables read as tables: a line is a case
"""What the user reads when something is wrong with a config."""

from __future__ import annotations

from pathlib import Path

import pytest

from mar_pipeline.config.build_config import Overrides, load
from mar_pipeline.errors import InputError

HEAD = "handler:\n  mode: {mode}\n  model_name: gpt2\n"
SEQ, TOKEN, QA, TEXT = (
    HEAD.format(mode=mode)
    for mode in ("sequence_classification", "token_classification", "question_answering", "text_generation")
)

# Text of the file, and the start of the one line that is said of it.
ONE_PROBLEM = {
    "unknown-key-in-a-section": (SEQ + "  max_lenght: 3\n", "c.yaml:4: handler.max_lenght: unknown key; did you mean handler.max_length?"),
    "unknown-key-at-the-top": (SEQ + "batchsize: 3\n", "c.yaml:4: batchsize: unknown key; did you mean batchSize?"),
    "unknown-key-like-nothing": (SEQ + "zzz: 3\n", "c.yaml:4: zzz: unknown key"),
    "a-front-end-key-in-handler": (SEQ + "  minWorkers: 3\n", "c.yaml:4: handler.minWorkers: unknown key; did you mean minWorkers, at the top"),
    "a-handler-key-at-the-top": (SEQ + "max_length: 3\n", "c.yaml:4: max_length: unknown key; did you mean handler.max_length?"),
    "a-neighbours-word": (SEQ + "  model: gpt2\n", "c.yaml:4: handler.model: unknown key; did you mean handler.model_name?"),
    "a-key-three-deep": (TEXT + "  generation:\n    do_sample: true\n    topk: 3\n", "c.yaml:6: handler.generation.topk: unknown key; did you mean handler.generation.top_k?"),
    "a-key-that-is-no-text": (SEQ + "1: x\n", "c.yaml:4: 1: unknown key"),
    "an-empty-key": (SEQ + "'': x\n", 'c.yaml:4: "": unknown key'),
    "a-key-of-blanks": (SEQ + "' ': x\n", 'c.yaml:4: " ": unknown key'),
    "a-key-with-a-blank-behind-it": (SEQ + "  'mode ': x\n", 'c.yaml:4: handler."mode ": unknown key; did you mean handler.mode?'),
    "text-for-a-number": (SEQ + "batchSize: eight\n", 'c.yaml:4: batchSize: expected a whole number, got "eight"'),
    "a-number-in-quotes": (SEQ + "batchSize: '8'\n", 'c.yaml:4: batchSize: expected a whole number, got "8"; leave the quotes out'),
    "a-fraction-for-a-whole-number": (SEQ + "batchSize: 8.5\n", "c.yaml:4: batchSize: expected a whole number, got 8.5"),
    "truth-for-a-number": (SEQ + "batchSize: yes\n", "c.yaml:4: batchSize: expected a whole number, got true"),
    "a-number-with-a-leading-zero": (SEQ + "batchSize: 010\n", 'c.yaml:4: batchSize: expected a whole number, got "010"; write 10, without a 0 in front, or 8 if it is octal'),
    "a-number-with-a-leading-zero-and-a-nine": (SEQ + "batchSize: 09\n", 'c.yaml:4: batchSize: expected a whole number, got "09"; write 9, without a 0 in front'),
    "a-number-with-a-leading-zero-in-quotes": (SEQ + "batchSize: '010'\n", 'c.yaml:4: batchSize: expected a whole number, got "010"; write 10, without a 0 in front and without quotes'),
    "a-number-for-truth": (SEQ + "useVenv: 1\n", "c.yaml:4: useVenv: expected true or false, got 1"),
    "truth-in-quotes": (SEQ + "useVenv: 'no'\n", 'c.yaml:4: useVenv: expected true or false, got "no"; leave the quotes out'),
    "a-number-for-a-text": ("handler:\n  mode: text_generation\n  model_name: 3\n", "c.yaml:3: handler.model_name: expected a text, got 3"),
    "text-for-a-section": (SEQ + "pt2: inductor\n", 'c.yaml:4: pt2: expected a section (key: value lines), got "inductor"'),
    "a-list-for-a-section": (SEQ + "archive: [1]\n", "c.yaml:4: archive: expected a section (key: value lines), got a list"),
    "text-for-a-list": (SEQ + "deviceIds: '0'\n", 'c.yaml:4: deviceIds: expected a list, got "0"'),
    "text-in-a-list-of-numbers": (SEQ + "  hardware: gpu\ndeviceIds:\n  - 0\n  - x\n", 'c.yaml:7: deviceIds[1]: expected a whole number, got "x"'),
    "text-for-a-fraction": (SEQ + "verify: {tolerance: small}\n", 'c.yaml:4: verify.tolerance: expected a number, got "small"'),
    "the-whole-handler-is-a-text": ("handler: gpt2\n", 'c.yaml:1: handler: expected a section (key: value lines), got "gpt2"'),
    "batch-size-zero": (SEQ + "batchSize: 0\n", "c.yaml:4: batchSize: 0 is out of range: at least 1"),
    "larger-than-javas-integers": (SEQ + "batchSize: 2147483648\n", "c.yaml:4: batchSize: 2147483648 is out of range: at most 2147483647 (TorchServe's largest)"),
    "a-number-of-many-digits": (SEQ + f"batchSize: {'9' * 5000}\n", f"c.yaml:4: batchSize: {'9' * 40} is not a whole number of at most 18 digits"),
    "minus": (SEQ + "maxBatchDelay: -1\n", "c.yaml:4: maxBatchDelay: -1 is out of range: at least 0"),
    "tolerance-zero": (SEQ + "verify: {tolerance: 0}\n", "c.yaml:4: verify.tolerance: 0 is out of range: more than 0"),
    "tolerance-nan": (SEQ + "verify: {tolerance: .nan}\n", "c.yaml:4: verify.tolerance: .nan is not a finite number"),
    "tolerance-infinite": (SEQ + "verify: {tolerance: -.inf}\n", "c.yaml:4: verify.tolerance: -.inf is not a finite number"),
    "tolerance-infinite-by-its-size": (SEQ + "verify: {tolerance: 1e999}\n", "c.yaml:4: verify.tolerance: 1e999 is not a finite number"),
    "tolerance-infinite-in-quotes": (SEQ + "verify: {tolerance: '1e999'}\n", 'c.yaml:4: verify.tolerance: expected a number, got "1e999"'),
    "max-length-zero": (SEQ + "  max_length: 0\n", "c.yaml:4: handler.max_length: 0 is out of range: at least 4"),
    "workers": (SEQ + "minWorkers: 3\nmaxWorkers: 2\n", "c.yaml:4: minWorkers: 3 is more than maxWorkers, 2"),
    "device-against-hardware": (SEQ + "  hardware: gpu\ndeviceType: cpu\n", "c.yaml:5: deviceType: cpu contradicts handler.hardware: gpu"),
    "gpus-for-the-cpu": (SEQ + "deviceIds: [0]\n", "c.yaml:4: deviceIds: chooses GPUs, but the model is not served on one; set handler.hardware: gpu"),
    "a-choice-misspelt": (SEQ + "  save_mode: torch_script\n", 'c.yaml:4: handler.save_mode: "torch_script" is not one of pretrained or torchscript; did you mean torchscript?'),
    "a-choice-by-a-neighbours-word": (SEQ + "  dtype: fp16\n", 'c.yaml:4: handler.dtype: "fp16" is not one of float32, float16, bfloat16 or auto; did you mean float16?'),
    "a-task-misspelt": (SEQ.replace("sequence", "sequnce"), 'c.yaml:2: handler.mode: "sequnce_classification" is not one of'),
    "two-tasks": (SEQ + "  task: text_generation\n", "c.yaml:4: handler.task: text_generation contradicts handler.mode: sequence_classification"),
    "no-task": ("handler:\n  model_name: gpt2\n", "c.yaml:1: handler.mode: is missing: one of sequence_classification,"),
    "no-model": ("batchSize: 8\nhandler:\n  mode: text_generation\n", "c.yaml:2: handler.model_name: is missing: a Hub id, a folder, or starter:TASK"),
    "cuda": (SEQ + "  hardware: cuda\n", 'c.yaml:4: handler.hardware: "cuda" is not one of cpu, gpu, neuron or neuronx; did you mean gpu?'),
    "half-precision-on-a-cpu": (SEQ + "  dtype: float16\n", "c.yaml:4: handler.dtype: float16 is slow or missing on a CPU"),
    "flash-attention-on-a-cpu": (SEQ + "  attn_implementation: flash_attention_2\n", "c.yaml:4: handler.attn_implementation: flash_attention_2 needs a GPU; use sdpa, or set handler.hardware: gpu"),
    "traced-and-parallel": (SEQ + "  save_mode: torchscript\n  model_parallel: true\n", "c.yaml:5: handler.model_parallel: a traced graph"),
    "traced-and-compiled": (SEQ + "  save_mode: torchscript\npt2:\n  compile: {enable: true}\n", "c.yaml:6: pt2.compile: torch.compile does not take a traced graph"),
    "traced-and-better": (SEQ + "  save_mode: torchscript\n  BetterTransformer: true\n", "c.yaml:5: handler.BetterTransformer: a traced graph"),
    "traced-with-flex-attention": (SEQ + "  save_mode: torchscript\n  attn_implementation: flex_attention\n", "c.yaml:5: handler.attn_implementation: flex_attention cannot be traced"),
    "compile-mode-and-options": (SEQ + "pt2:\n  compile: {mode: default, options: {a: 1}}\n", "c.yaml:5: pt2.compile.options: torch.compile takes mode or options, not both"),
    "export-is-not-built": (SEQ + "pt2:\n  export: {aot_compile: true}\n", "c.yaml:5: pt2.export: unknown key"),
    "aggregation-without-entities": (SEQ + "  aggregation_strategy: max\n", "c.yaml:4: handler.aggregation_strategy: is for token_classification, not for seq_classification"),
    "top-k-of-a-generator": (TEXT + "  top_k: 5\n", "c.yaml:4: handler.top_k: is for seq_classification and question_answering, not for text_generation; use handler.generation.top_k"),
    "generation-without-a-generator": (QA + "  generation: {top_k: 5}\n", "c.yaml:4: handler.generation: is for text_generation, not for question_answering"),
    "labels-without-labels": (QA + "  labels: [a, b]\n", "c.yaml:4: handler.labels: is for seq_classification and token_classification"),
    "more-answers-than-labels": (SEQ + "  labels: [a, b]\n  top_k: 3\n", "c.yaml:5: handler.top_k: is 3, but there are 2 labels"),
    "labels-against-their-number": (SEQ + "  labels: [a, b]\n  num_labels: 3\n", "c.yaml:5: handler.num_labels: is 3, but handler.labels has 2 names"),
    "a-label-missing": (SEQ + "  labels: {0: a, 2: b}\n", "c.yaml:4: handler.labels: lacks the label 1: the indices must run from 0 without a gap"),
    "a-label-at-a-word": (SEQ + "  labels: {a: 0}\n", "c.yaml:4: handler.labels: \"a\" is not the index of a label: 0, 1, 2, ..."),
    "one-name-for-two-labels": (SEQ + "  labels: [a, b, a]\n", "c.yaml:4: handler.labels: labels 0 and 2 have the same name, \"a\""),
    "a-label-without-a-name": (SEQ + "  labels: [a, '']\n", "c.yaml:4: handler.labels: the name of label 1 is \"\", and not a text"),
    "no-labels": (SEQ + "  labels: []\n", "c.yaml:4: handler.labels: is empty: expected one name at least"),
    "labels-in-one-text": (SEQ + "  labels: a b\n", "c.yaml:4: handler.labels: expected a list of names, or a mapping of index to name"),
    "an-overlap-of-the-whole-window": (TOKEN + "  max_length: 64\n  stride: 64\n", "c.yaml:5: handler.stride: 64 must be less than max_length, 64"),
    "an-overlap-of-any-window": (TOKEN + "  stride: 600\n", "c.yaml:4: handler.stride: 600 must be less than the default max_length, 512"),
    "an-answer-of-the-whole-window": (QA + "  max_length: 64\n  max_answer_length: 100\n", "c.yaml:5: handler.max_answer_length: 100 must be less than max_length, 64"),
    "more-new-tokens-than-room": (TEXT + "  max_length: 64\n  generation: {max_new_tokens: 64}\n", "c.yaml:5: handler.generation.max_new_tokens: 64 must be less than max_length, 64"),
    "top-p-above-one": (TEXT + "  generation: {top_p: 1.5}\n", "c.yaml:4: handler.generation.top_p: 1.5 is out of range: at most 1"),
    "archive-name": (SEQ + "archive: {name: 'my model'}\n", 'c.yaml:4: archive.name: "my model": letters, digits and _ - . only'),
    "archive-name-with-a-dot-first": (SEQ + "archive: {name: .hidden}\n", 'c.yaml:4: archive.name: ".hidden": letters,'),
    "archive-name-with-a-line-end": (SEQ + 'archive: {name: "a\\n"}\n', 'c.yaml:4: archive.name: "a\\n": letters,'),
    "archive-name-in-another-script": (SEQ + "archive: {name: modèle}\n", 'c.yaml:4: archive.name: "modèle": letters,'),
    "archive-name-with-a-letter-that-nobody-sees": (SEQ + "archive: {name: a\u200bb}\n", 'c.yaml:4: archive.name: "a\\u200bb": letters,'),
    "a-model-with-a-letter-that-nobody-sees": (SEQ.replace("gpt2", "gpt2\u200b"), r"c.yaml:3: handler.model_name: gpt2\u200b is neither a folder here nor a Hub id"),
    "archive-name-too-long": (SEQ + f"archive: {{name: {'a' * 201}}}\n", "c.yaml:4: archive.name: has 201 characters, and may have 200"),
    "archive-version": (SEQ + "archive: {version: 1/2}\n", 'c.yaml:4: archive.version: "1/2": letters,'),
    "archive-format": (SEQ + "archive: {format: zip}\n", 'c.yaml:4: archive.format: "zip" is not one of zip-store, default, tgz or no-archive; did you mean zip-store?'),
    "revision-with-blanks": (SEQ + "  revision: a b\n", 'c.yaml:4: handler.revision: "a b": a branch, tag or commit has 1 to 200 characters, none of them a blank'),
    "revision-of-no-characters": (SEQ + "  revision: ''\n", 'c.yaml:4: handler.revision: "": a branch, tag or commit has 1 to 200 characters'),
    "base-revision-with-blanks": (SEQ + "  base_revision: a b\n", 'c.yaml:4: handler.base_revision: "a b": a branch, tag or commit has 1 to 200 characters'),
    "version-with-a-tilde": (SEQ + "archive: {version: 1~a}\n", 'c.yaml:4: archive.version: "1~a": letters, digits and _ - . + only'),
    "version-of-many-digits": (SEQ + "archive: {version: 20261130123456789012}\n", "c.yaml:4: archive.version: 20261130123456789012 is not a whole number of at most 18 digits; if it is a text, put it in quotes"),
    "revision-of-a-starter": ("handler:\n  mode: text_generation\n  model_name: starter:text_generation\n  revision: main\n", "c.yaml:4: handler.revision: only a Hub id has revisions, and starter:text_generation is a starter"),
    "samples-of-another-task": (QA + "verify:\n  samples:\n    - {question: a, context: b}\n    - {text: c}\n", "c.yaml:7: verify.samples[1]: is not a request for question_answering: unknown field; the fields are question, context, top_k"),
    "no-samples": (QA + "verify:\n  samples: []\n", "c.yaml:5: verify.samples: is empty"),
    "an-empty-sample": (TEXT + "verify:\n  samples: [a, {}]\n", "c.yaml:5: verify.samples: request 1 is empty"),
    "torchrun": (SEQ + "torchrun: {nproc_per_node: 2}\n", "c.yaml:4: torchrun.nproc_per_node: unknown key; did you mean torchrun.nproc-per-node?"),
    "twice": (SEQ + "  max_length: 8\n  mode: text_generation\n", "c.yaml:5: handler.mode: given twice (first on line 2): remove one"),
    "twice-at-the-top": (SEQ + "archive: {}\narchive: {}\n", "c.yaml:5: archive: given twice (first on line 4): remove one"),
    "a-tag": (SEQ + "batchSize: !!python/object/apply:os.system ['id']\n", "c.yaml:4: batchSize: the tag !!python/object/apply:os.system is not allowed"),
    "a-tag-of-ones-own": (SEQ + "batchSize: !env N\n", "c.yaml:4: batchSize: the tag !env is not allowed: write a plain value"),
    "a-checkpoints-config": ('{"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_head": 12}', "c.yaml:1: is a checkpoint's config.json, not a config; for its model: mar build --model ."),
    "a-list": ("- 1\n", "c.yaml:1: holds a list, not 'key: value' lines; a config has a section `handler:`"),
    "a-word": ("hello\n", "c.yaml:1: holds \"hello\", not 'key: value' lines"),
    "nothing": ("", "c.yaml:1: is empty; a config has a section `handler:` with the line `model_name: starter:seq_classification`"),
    "comments-only": ("# a\n\n", "c.yaml:1: is empty"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "line"), ONE_PROBLEM.values(), ids=ONE_PROBLEM)
def test_a_problem_is_one_line_with_file_line_and_key(problems, text, line):
    (found,) = problems(text)
    assert found.startswith(line)
    assert len(found) < 250


@pytest.mark.parametrize(
    "line", ["batchSize: 1:30", "batchSize: '1.5'", "batchSize: '1:30'", "useVenv: 'yEs'", "useVenv: nO"]
)
def test_quotes_are_not_to_be_left_out_where_that_would_not_help(problems, line):
    (found,) = problems(f"{SEQ}{line}\n")
    assert "quotes" not in found


def test_all_problems_come_together_in_the_order_of_the_file(problems):
    found = problems(
        """\
        minWorkers: 4
        maxWorkers: 1
        batchsize: 8
        handler:
          model_name: ./nowhere
          mode: token_clasification
          max_lenght: 3
          generation: {top_p: 3, foo: 1}
        archive:
          name: a b
        verify: {tolerance: -1, samples: 3}
        """,
        "handler.max_length=x",
        save_mode="tar",
    )
    assert [line.split(": ")[:2] for line in found] == [
        ["--save-mode tar", '"tar" is not one of pretrained or torchscript'],
        ["--set handler.max_length=x", 'expected a whole number, got "x"'],
        ["c.yaml:1", "minWorkers"],
        ["c.yaml:3", "batchsize"],
        ["c.yaml:5", "handler.model_name"],
        ["c.yaml:6", "handler.mode"],
        ["c.yaml:7", "handler.max_lenght"],
        ["c.yaml:8", "handler.generation.top_p"],
        ["c.yaml:8", "handler.generation.foo"],
        ["c.yaml:10", "archive.name"],
        ["c.yaml:11", "verify.tolerance"],
        ["c.yaml:11", "verify.samples"],
    ]


def test_two_wrong_items_of_a_list_do_not_hide_the_rest_of_their_section(problems):
    found = problems(SEQ + "  top_k: 0\n  hardware: gpu\ndeviceIds: [x, y]\nbatchSize: 0\n")
    assert [line.split(": ")[1] for line in found] == [
        "handler.top_k",
        "deviceIds[0]",
        "deviceIds[1]",
        "batchSize",
    ]


def test_a_wrong_value_brings_no_second_complaint_about_what_depends_on_it(problems):
    assert len(problems(SEQ + "  hardware: cudda\n  dtype: bfloat16\ndeviceType: gpu\n")) == 1


OVERRIDES = {
    "unknown-key": (["handler.max_lenght=256"], {}, "--set handler.max_lenght=256: unknown key; did you mean handler.max_length?"),
    "wrong-type": (["batchSize=x"], {}, '--set batchSize=x: expected a whole number, got "x"'),
    "no-value": (["batchSize"], {}, "--set batchSize: expected KEY=VALUE, such as handler.max_length=256"),
    "no-key": (["=3"], {}, "--set =3: expected KEY=VALUE"),
    "an-empty-part": (["handler..a=3"], {}, "--set handler..a=3: expected KEY=VALUE"),
    "no-yaml": (["batchSize=[1"], {}, "--set batchSize=[1: not valid YAML: a bracket or a quote is opened and not closed"),
    "no-section": (["handler.mode.x=1"], {}, "--set handler.mode.x=1: handler.mode is not a section"),
    "in-place-of-a-section-of-the-file": (["handler={mode: x}"], {}, '--set handler={mode: x}: handler.mode: "x" is not one of'),
    "inside-a-section": (["archive={nam: x}"], {}, "--set archive={nam: x}: archive.nam: unknown key; did you mean archive.name?"),
    "twice": (["archive={name: x, name: y}"], {}, "--set archive={name: x, name: y}: given twice (first on line 1): remove one"),
    "a-conflict": (["handler.save_mode=torchscript", "handler.model_parallel=true"], {}, "--set handler.model_parallel=true: a traced graph"),
    "a-line-end": (["batchSize=a\nb"], {}, "--set 'batchSize=a\\nb': expected a whole number"),
    "task": ([], {"task": "sentimant"}, '--task sentimant: "sentimant" is not one of'),
    "task-by-another-word": ([], {"task": "ner"}, '--task ner: "ner" is not one of'),
    "save-mode": ([], {"save_mode": "jit"}, '--save-mode jit: "jit" is not one of pretrained or torchscript; did you mean torchscript?'),
    "model": ([], {"model": "./gone"}, "--model ./gone: no such folder: ./gone"),
    "revision": ([], {"revision": "a b"}, '--revision a b: "a b": a branch, tag or commit has 1 to 200 characters'),
    "half-a-character": (["archive.version=\udcff"], {}, "--set 'archive.version=\\udcff': the character U+DCFF is not allowed in YAML: remove it"),
    "a-number-in-quotes": (["batchSize='8'"], {}, """--set batchSize='8': expected a whole number, got "8"; leave the quotes out"""),
    "a-leading-zero": (["batchSize=010"], {}, '--set batchSize=010: expected a whole number, got "010"; write 10, without a 0 in front'),
    "revision-of-a-folder": ([], {"revision": "main", "model": "."}, "--revision main: only a Hub id has revisions, and . is a folder"),
}  # fmt: skip


@pytest.mark.parametrize(("settings", "options", "line"), OVERRIDES.values(), ids=OVERRIDES)
def test_a_problem_of_the_command_line_names_the_option(problems, settings, options, line):
    found = problems(SEQ, *settings, **options)
    assert found[0].startswith(line)
    assert all(row.startswith("--") for row in found)


SYNTAX = {
    "a-tab": ("handler:\n\tmode: x\n", "c.yaml:2: not valid YAML: indented with a tab: use spaces"),
    "two-colons": ("handler:\n  mode: a: b\n", "c.yaml:2: not valid YAML: a second ': ' on this line"),
    "an-open-bracket": ("a: [1,\nb: 2\n", "c.yaml:"),
    "an-open-quote": ("a: 'b\n", "c.yaml:"),
    "no-colon": ("handler:\n  mode: a\n  model\nb: 1\n", "c.yaml:"),
    "no-anchor": ("a: *b\n", "c.yaml:1: not valid YAML: an alias (*name) without an anchor"),
    "two-documents": ("a: 1\n---\nb: 1\n", "c.yaml:2: not valid YAML: a second document (---) starts here"),
    "indentation": ("handler:\n    mode: a\n  b: 1\n", "c.yaml:3: not valid YAML: not a 'key: value' line"),
    "an-at-sign": ("a: @b\n", "c.yaml:1: not valid YAML: a value cannot start with @: put quotes around it"),
    "a-control-character": ("a: 1\nb: \x01\n", "c.yaml:2: the character U+0001 is not allowed in YAML: remove it"),
    "a-control-character-behind-other-letters": ("# éééé\n\na: 1\nb: \x01\n\n\n\n", "c.yaml:4: the character U+0001 is not allowed in YAML"),
    "an-alias-of-itself": ("a: &a [*a]\n", "c.yaml:1: a[0][0][0]: nested more than 32 deep, or an alias of itself"),
    "brackets": ("a: " + "[" * 5000, "c.yaml:1: "),
    "closed-brackets": ("a: " + "[" * 500 + "]" * 500, "c.yaml:1: "),
    "a-list-as-key": ("? [a]\n: 1\n", "c.yaml:1: a key must be one word"),
    "a-merge-of-a-word": ("a: 1\n<<: b\n", "c.yaml:2: <<: a merge key (<<) takes a mapping"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "line"), SYNTAX.values(), ids=SYNTAX)
def test_what_is_no_yaml_is_said_with_its_line(problems, text, line):
    found = problems(text)
    assert any(one.startswith(line) for one in found)
    if "not valid YAML" in found[0]:
        assert len(found) == 1


def test_an_alias_bomb_is_refused_at_once(problems):
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    assert "more than 20,000 values, aliases written out" in problems("\n".join(rows))[0]


class TestFiles:
    def said(self, path: str, **options: str) -> str:
        with pytest.raises(InputError) as caught:
            load(Path(path), Overrides(**options))
        return str(caught.value)

    def test_a_missing_file_gets_a_near_one_of_its_folder(self, write):
        Path("configs").mkdir()
        write(SEQ, "configs/sentiment.yaml")
        assert self.said("configs/sentimant.yaml") == (
            "configs/sentimant.yaml: no such file; did you mean configs/sentiment.yaml?"
        )
        assert self.said("sentiment") == "sentiment: no such file; did you mean configs/sentiment.yaml?"

    def test_a_tasks_name_as_a_file_gets_the_option(self):
        assert self.said("text_generation") == ("text_generation: no such file; did you mean --task text_generation?")
        assert "did you mean --task text_generation?" in self.said("text_generatoin")
        Path("configs").mkdir()
        Path("configs/text_generation.yaml").touch()
        assert self.said("text_generation.yaml") == (
            "text_generation.yaml: no such file; did you mean --task text_generation, or configs/text_generation.yaml?"
        )

    def test_a_missing_file_like_no_other_gets_no_guess(self):
        assert self.said("a/b/c.yaml") == "a/b/c.yaml: no such file"

    def test_a_folder_is_told_to_be_a_model_perhaps(self):
        Path("model").mkdir()
        assert self.said("model") == (
            "model is a folder; a config is a YAML file. For the model in it: mar build --model model"
        )

    def test_bytes_that_are_no_utf8_are_said_with_their_line(self):
        Path("c.yaml").write_bytes(b"a: 1\nb: caf\xe9\n")
        assert self.said("c.yaml") == "c.yaml:2: byte 0xe9 is not UTF-8: save it as UTF-8 text"

    def test_a_byte_order_mark_does_no_harm(self):
        Path("c.yaml").write_bytes(b"\xef\xbb\xbf" + SEQ.encode())
        assert load(Path("c.yaml")).task.name == "seq_classification"

    def test_windows_line_ends_do_no_harm(self):
        Path("c.yaml").write_bytes((SEQ + "batchSize: 0\n").replace("\n", "\r\n").encode())
        assert self.said("c.yaml").startswith("c.yaml:4: batchSize")

    def test_a_file_that_is_too_large_is_not_parsed(self):
        Path("c.yaml").write_bytes(b"# x\n" * 300_000)
        assert self.said("c.yaml") == "c.yaml: is larger than 1 MiB, so it is not a config"

    def test_a_path_that_the_system_refuses_is_an_input_error(self):
        assert "cannot be read" in self.said("a\0b")
        assert "cannot be read" in self.said("a" * 300)

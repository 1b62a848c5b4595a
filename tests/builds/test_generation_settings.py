"""A checkpoint's settings of generation, by transformers' precedence: generation_config.json alone, or config.json."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mar_pipeline.builder import resolve
from mar_pipeline.errors import InputError, StageError
from mar_pipeline.handlers.inference import defaults
from mar_pipeline.model.checkpoint import read_json
from mar_pipeline.tasks import TASKS
from mar_pipeline.workers import trace
from tests.support import tiny
from tests.support.mar import Mar

pytestmark = pytest.mark.slow

PROMPT = "the room was good"

CONFIGS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "an end": {"eos_token_id": 7},
    "ends": {"eos_token_id": [7, 8]},
    "null": {"eos_token_id": None},
    "all": {"eos_token_id": 7, "repetition_penalty": 1.3, "temperature": 0.5, "top_k": 7, "top_p": 0.9},
    "lengths": {"eos_token_id": 7, "max_new_tokens": 3, "max_length": 9},
    "of a task": {"eos_token_id": 7, "task_specific_params": {"text-generation": {"max_length": 9}}},
    "without effect": {"temperature": 0, "top_k": -1, "top_p": 2.0},
}
FILES: dict[str, dict[str, Any] | None] = {"none": None, "empty": {}, "other end": {"eos_token_id": 5}, **CONFIGS}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose files have no settings of generation."""
    folder = tiny.save(tmp_path_factory.mktemp("plain") / "llama", "llama", "text_generation")
    config = json.loads((folder / "config.json").read_text())
    kept = {name: value for name, value in config.items() if not name.endswith("_token_id")}
    (folder / "config.json").write_text(json.dumps(kept))
    (folder / "generation_config.json").unlink()
    return folder


def changed(plain: Path, folder: Path, config: dict[str, Any], own: dict[str, Any] | None) -> Path:
    shutil.copytree(plain, folder)
    whole = {**json.loads((folder / "config.json").read_text()), **config}
    (folder / "config.json").write_text(json.dumps(whole))
    if own is not None:
        (folder / "generation_config.json").write_text(json.dumps(own))
    return folder


def loaded(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()


def texts(folder: Path, **asked: Any) -> str:
    """What transformers writes after the prompt."""
    from transformers import AutoTokenizer

    model, tokenizer = loaded(folder), AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(PROMPT, return_tensors="pt", return_token_type_ids=False)
    out = model.generate(**inputs, **{"do_sample": False, **asked})[0]
    before = len(tokenizer.decode(inputs["input_ids"][0], skip_special_tokens=True))
    return str(tokenizer.decode(out, skip_special_tokens=True))[before:]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("config", CONFIGS)
def test_the_settings_are_those_of_the_model_that_transformers_loads(
    plain: Path, config: str, file: str, tmp_path: Path
) -> None:
    from transformers import GenerationConfig

    folder = changed(plain, tmp_path / "llama", CONFIGS[config], FILES[file])
    model = loaded(folder)
    theirs, unset = model.generation_config, GenerationConfig()
    ours, ends = defaults.read(folder, model)
    wanted = theirs.eos_token_id
    assert ends == set([] if wanted is None else wanted if isinstance(wanted, list) else [wanted])
    for name in ("temperature", "top_k", "top_p", "repetition_penalty", "max_new_tokens", "max_length"):
        value = getattr(theirs, name)
        odd = value == CONFIGS["without effect"].get(name)
        assert ours.get(name) == value or (name not in ours and (odd or value == getattr(unset, name))), name
    if "eos_token_id" in {**CONFIGS[config], **(FILES[file] or {})}:
        assert defaults.read(folder)[1] == ends


def answer(mar: Mar, archive: dict[str, Any], **parameters: Any) -> str:
    asked = {"prompt": PROMPT, **({"parameters": parameters} if parameters else {})}
    done = mar("run", archive["path"], "--input", json.dumps(asked), "--json")
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["generated_text"])


@pytest.mark.parametrize(
    ("mode", "own", "pickled"),
    [("pretrained", {}, False), ("torchscript", {}, False), ("torchscript", None, False), ("pretrained", None, True)],
    ids=["an empty file", "an empty file, traced", "no file, traced", "no file, and a pickle"],
)
def test_an_archive_ends_and_penalizes_as_transformers_does(
    plain: Path, mode: str, own: Any, pickled: bool, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    free = loaded(changed(plain, tmp_path / "free", {"repetition_penalty": 1.7}, None))
    import torch
    from transformers import AutoTokenizer

    ids = AutoTokenizer.from_pretrained(plain)(PROMPT, return_tensors="pt")["input_ids"]
    end = int(free.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=6)[0, -1])
    config = {"eos_token_id": end, "repetition_penalty": 1.7, "max_new_tokens": 12}
    folder = changed(plain, tmp_path / "llama", config, own)
    assert texts(folder, max_new_tokens=12) != texts(
        changed(plain, tmp_path / "other", config, {} if own is None else None)
    )
    if pickled:
        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    mar = Mar(tmp_path)
    (archive,) = mar.build("--model", folder, "--save-mode", mode, "--set", f"handler.allow_pickle={pickled}")
    assert answer(mar, archive, max_new_tokens=12) == texts(folder, max_new_tokens=12)
    if own is None:
        assert answer(mar, archive) == texts(folder)


@pytest.mark.parametrize(
    ("name", "value", "applies"),
    [
        ("forced_eos_token_id", 0, True),
        ("forced_eos_token_id", None, False),
        ("forced_bos_token_id", 0, True),
        ("no_repeat_ngram_size", 0, False),
        ("no_repeat_ngram_size", 2, True),
        ("min_new_tokens", 0, False),
        ("min_new_tokens", 1, True),
        ("encoder_repetition_penalty", 1.0, False),
        ("guidance_scale", 1.5, True),
        ("penalty_alpha", 0.6, True),
        ("penalty_alpha", 0.0, False),
        ("suppress_tokens", [], False),
        ("suppress_tokens", [0], True),
        ("stop_strings", ["the"], True),
        ("stop_strings", "the", True),
        ("token_healing", True, True),
        ("token_healing", False, False),
        ("force_words_ids", [[1]], True),
    ],
)
def test_what_a_trace_cannot_do_is_refused_by_name(name: str, value: Any, applies: bool) -> None:
    own = SimpleNamespace(**{name: value})
    if applies:
        with pytest.raises(StageError, match=f"asks for {name}, which a traced decoder does not implement"):
            trace._refuse_constraints(own)
    else:
        trace._refuse_constraints(own)


@pytest.mark.parametrize("where", ["generation_config.json", "config.json"])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("eos_token_id", odd) for odd in ("0", True, 5.0, {"a": 1}, ["0"], [None], [[1]])),
        *(("temperature", odd) for odd in ("0.7", [1], True)),
        *(("repetition_penalty", odd) for odd in ("1.3", {})),
        *(("max_new_tokens", odd) for odd in ("5", 2.5, False)),
        *((name, "9") for name in ("top_k", "top_p", "max_length")),
    ],
)
def test_strange_settings_are_refused_by_name_and_place(
    plain: Path, where: str, key: str, value: Any, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=f"{key} in the checkpoint's {where} is"):
        resolve.check_task(inputs(plain, where, {key: value}, tmp_path / "llama"))


@pytest.mark.parametrize("where", ["generation_config.json", "config.json"])
@pytest.mark.parametrize(
    ("key", "value", "applies"),
    [
        ("stop_strings", ["the"], True),
        ("stop_strings", [], True),
        ("penalty_alpha", 0.6, True),
        ("penalty_alpha", 0.0, False),
        ("dola_layers", "high", True),
        ("token_healing", True, True),
        ("token_healing", False, False),
        ("force_words_ids", [[1]], True),
        ("constraints", None, False),
    ],
)
def test_what_transformers_itself_does_not_do_without_more_is_refused_by_name(
    plain: Path, where: str, key: str, value: Any, applies: bool, tmp_path: Path
) -> None:
    ask = inputs(plain, where, {key: value}, tmp_path / "llama")
    if applies:
        with pytest.raises(ValueError, match=r"."):
            texts(tmp_path / "llama")
        with pytest.raises(InputError, match=f"{where} asks for {key}"):
            resolve.check_task(ask)
    else:
        texts(tmp_path / "llama")
        resolve.check_task(ask)


def inputs(plain: Path, where: str, strange: dict[str, Any], into: Path) -> Any:
    """A changed checkpoint as the result of the download stage."""
    file = where == "generation_config.json"
    folder = changed(plain, into, {} if file else strange, strange if file else None)
    find = lambda _stage, name: folder / name if (folder / name).exists() else None  # noqa: E731
    read = lambda _stage, name: read_json(folder / name) if (folder / name).exists() else {}  # noqa: E731
    handler = SimpleNamespace(allow_untrained_head=False)
    config = SimpleNamespace(handler=handler, task=TASKS["text_generation"], model=SimpleNamespace(name="here"))
    return SimpleNamespace(config=config, read_json=read, find=find, tree=lambda _stage: ())

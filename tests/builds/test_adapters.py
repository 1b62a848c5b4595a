"""LoRA adapters, made by peft itself: merged into their base models, and answering as peft's own models do unmerged."""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import mar as support
from tests.support import tiny
from tests.support.mar import Mar
from tests.support.stand_ins.hub import Hub, running

pytestmark = pytest.mark.slow

TEXTS = ["The soup was good", "a kind old man, not awful", "bad"]
PROMPTS = ["Once upon a time", "The door"]


def train(model: Any) -> Any:
    """As if it had been: peft's own adapters begin with no effect."""
    import torch

    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn_like(parameter) * 0.5)
    return model


def save(folder: Path, model: Any, base: str, **settings: Any) -> Path:
    """An adapter over a loaded model, whose config names `base`."""
    import peft

    revision = settings.pop("revision", None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of GPT-2's layers, whose weights lie the other way
        made = train(peft.get_peft_model(model, peft.LoraConfig(r=4, **settings)))
    made.peft_config["default"].base_model_name_or_path = base
    made.peft_config["default"].revision = revision
    made.save_pretrained(folder, save_embedding_layers=False)
    return folder


def classifier(encoder: Path, labels: int = 3, **options: Any) -> Any:
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_pretrained(encoder, num_labels=labels, **options)


def writer(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`encoder` (without a head), `gpt2`, and adapters over them: `bert` of three labels, and `text`."""
    from transformers import AutoModel, AutoTokenizer

    folder = tmp_path_factory.mktemp("adapters")
    whole = tiny.save(folder / "classifier", "bert", "seq_classification")
    AutoModel.from_pretrained(whole).save_pretrained(folder / "encoder")
    AutoTokenizer.from_pretrained(whole).save_pretrained(folder / "encoder")
    tiny.save(folder / "gpt2", "gpt2", "text_generation")
    save(folder / "bert", classifier(folder / "encoder"), "../encoder", task_type="SEQ_CLS")
    save(folder / "text", writer(folder / "gpt2"), "/where/it/was/trained", task_type="CAUSAL_LM")
    return folder


@pytest.fixture(scope="module")
def mar(tmp_path_factory: pytest.TempPathFactory) -> Mar:
    return Mar(tmp_path_factory.mktemp("mar"))


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with running() as found:
        yield found


def online(mar: Mar, hub: Hub) -> dict[str, str]:
    return {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.address, "HF_HOME": str(mar.folder / "hub")}


def over(folder: Path, base: Path, labels: int = 3) -> Any:
    """peft's own model: the adapter at work beside its base, nothing merged."""
    import peft

    model = classifier(base, labels, ignore_mismatched_sizes=True) if labels else writer(base)
    return peft.PeftModel.from_pretrained(model, folder).eval()


def classified(folder: Path, base: Path, labels: int = 3) -> list[dict[str, Any]]:
    from transformers import AutoTokenizer, pipeline

    ask = pipeline(
        "text-classification", model=over(folder, base, labels), tokenizer=AutoTokenizer.from_pretrained(base)
    )
    return list(ask(TEXTS))


def written(folder: Path, base: Path) -> list[str]:
    from transformers import AutoTokenizer, pipeline

    tokenizer = AutoTokenizer.from_pretrained(base)
    ask = pipeline("text-generation", model=over(folder, base, labels=0), tokenizer=tokenizer)
    found = ask(PROMPTS, do_sample=False, max_new_tokens=12, return_full_text=False, pad_token_id=0)
    return [row[0]["generated_text"] for row in found]


def answers(mar: Mar, archive: dict[str, Any], requests: list[Any]) -> list[Any]:
    done = mar("run", mar.folder / archive["path"], "--input", json.dumps(requests), "--json")
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


def refuse_parts_of_adapters(archive: Path) -> None:
    """There is nothing of an adapter's in an archive: neither files nor tensors."""
    from safetensors import safe_open

    with zipfile.ZipFile(archive) as packed:
        assert not [name for name in packed.namelist() if "adapter" in name or name.endswith((".bin", ".md"))]
        packed.extract("model.safetensors", archive.parent / "unpacked")
    with safe_open(archive.parent / "unpacked/model.safetensors", "pt") as tensors:
        names = list(tensors.keys())
    assert names
    assert not [name for name in names if "lora" in name or "base_layer" in name or "modules_to_save" in name]


def holds(mar: Mar, archive: dict[str, Any], folder: Path, base: Path, labels: int = 3) -> None:
    """The archive answers as peft's own model does, not as the base without the adapter, and holds nothing of it."""
    path = mar.folder / archive["path"]
    refuse_parts_of_adapters(path)
    got, wanted = answers(mar, archive, TEXTS), classified(folder, base, labels)
    assert [one["label"] for one in got] == [one["label"] for one in wanted]
    assert [one["score"] for one in got] == pytest.approx([one["score"] for one in wanted], abs=1e-5)
    described = json.loads(mar("inspect", path, "--json").stdout)
    assert len(described["labels"]) == labels
    with zipfile.ZipFile(path) as packed:
        assert len(json.loads(packed.read("config.json"))["id2label"]) == labels


def writes(mar: Mar, archive: dict[str, Any], folder: Path, base: Path) -> None:
    refuse_parts_of_adapters(mar.folder / archive["path"])
    requests = [{"prompt": prompt, "parameters": {"max_new_tokens": 12}} for prompt in PROMPTS]
    got = [one["generated_text"] for one in answers(mar, archive, requests)]
    assert got == written(folder, base)


def test_an_adapter_beside_its_base_model_is_merged_and_answers_as_unmerged(mar: Mar, root: Path) -> None:
    (archive,) = mar.build("--model", root / "bert")
    holds(mar, archive, root / "bert", root / "encoder")
    assert archive["source"] == {"kind": "folder", "base": {"kind": "folder"}}
    done = mar("check", mar.folder / archive["path"])
    assert done.returncode == 0, done.stdout
    # That it is the adapter that answers.
    base = [one["score"] for one in classified(root / "bert", root / "encoder")]
    bare = train(classifier(root / "encoder")).eval()
    with_a_head_alone = [bare(**tokens(root, text)).logits.softmax(-1).max().item() for text in TEXTS]
    assert base != pytest.approx(with_a_head_alone, abs=1e-3)


def tokens(root: Path, text: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(root / "encoder")(text, return_tensors="pt")


def test_an_adapter_over_a_base_model_of_the_hub_is_traced_merged(
    mar: Mar, hub: Hub, root: Path, tmp_path: Path
) -> None:
    hub.add("org/encoder", root / "encoder", license="mit")
    folder = save(tmp_path / "adapter", classifier(root / "encoder"), "org/encoder", task_type="SEQ_CLS")
    (archive,) = mar.build("--model", folder, "--save-mode", "torchscript", **online(mar, hub))
    holds(mar, archive, folder, root / "encoder")
    commit = hub.models["org/encoder"]["commit"]
    assert archive["source"]["base"] == {"kind": "hub", "repo": "org/encoder", "commit": commit, "license": "mit"}


def test_a_base_model_that_the_config_names_counts_before_the_adapters_own(mar: Mar, root: Path) -> None:
    (archive,) = mar.build("--model", root / "text", "--set", f"handler.base_model={root}/gpt2")
    writes(mar, archive, root / "text", root / "gpt2")


def test_an_adapter_and_its_base_model_both_of_the_hub_are_pinned_each(
    mar: Mar, hub: Hub, root: Path, tmp_path: Path
) -> None:
    commit = hub.add("org/gpt2", root / "gpt2", branch="v2")
    hub.add("org/gpt2", tiny.save(tmp_path / "newer", "gpt2", "text_generation", n_layer=1))
    # Its tokenizer comes with it, as a Trainer's does.
    folder = save(tmp_path / "adapter", writer(root / "gpt2"), "org/gpt2", revision="v2", task_type="CAUSAL_LM")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(root / "gpt2" / name, folder / name)
    own = hub.add("org/adapter", folder)
    (archive,) = mar.build("--model", "org/adapter", "--save-mode", "torchscript", **online(mar, hub))
    writes(mar, archive, folder, root / "gpt2")
    base = {"kind": "hub", "repo": "org/gpt2", "commit": commit}
    assert archive["source"] == {"kind": "hub", "repo": "org/adapter", "commit": own, "base": base}
    before = len(hub.asked)
    words = ("--model", "org/adapter", "--save-mode", "torchscript", "--offline")
    (again,) = mar.build(*words, **online(mar, hub))
    assert again["sha256"] == archive["sha256"]
    assert len(hub.asked) == before


def test_an_adapter_over_a_base_in_16_bits_is_merged_in_what_it_is_served_in(
    mar: Mar, root: Path, tmp_path: Path
) -> None:
    import torch

    model = classifier(root / "encoder")
    base = tmp_path / "half"
    shutil.copytree(root / "encoder", base)
    from transformers import AutoModel

    AutoModel.from_pretrained(root / "encoder").to(torch.bfloat16).save_pretrained(base)
    folder = save(tmp_path / "adapter", model, "../half", task_type="SEQ_CLS")
    mar.build("--model", folder)
    report = json.loads((mar.out / "reports/adapter.json").read_text())
    assert report["largest_difference"] < 1e-5
    # Another dtype to serve in is another merge.
    plan = mar.plan("--model", folder, "--set", "handler.dtype=bfloat16")
    assert plan["serialize"]["reasons"] == ["dtype float32 -> bfloat16"]


def test_a_pickled_adapter_with_a_head_of_another_size_than_its_bases(mar: Mar, root: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    folder = shutil.copytree(root / "bert", tmp_path / "adapter")
    torch.save(load_file(folder / "adapter_model.safetensors"), folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").unlink()
    words = ("--model", folder, "--set", f"handler.base_model={root}/classifier")
    done = mar("build", *words)
    assert done.returncode == 2
    assert "pickled (adapter_model.bin)" in done.stderr
    allowed = (*words, "--set", "handler.allow_pickle=true", "--set", "handler.labels=[one, two, three]")
    (archive,) = mar.build(*allowed)
    refuse_parts_of_adapters(mar.folder / archive["path"])
    got, wanted = answers(mar, archive, TEXTS), classified(folder, root / "classifier")
    names = {"LABEL_0": "one", "LABEL_1": "two", "LABEL_2": "three"}
    assert [one["label"] for one in got] == [names[one["label"]] for one in wanted]
    assert [one["score"] for one in got] == pytest.approx([one["score"] for one in wanted], abs=1e-5)


@pytest.mark.parametrize(
    ("family", "shape", "said"),
    [
        ("bert", {"num_hidden_layers": 1}, "does not fit its base model, which has no weight bert.encoder.layer.1"),
        ("bert", {"hidden_size": 64}, "size mismatch"),
        ("gpt2", {}, "peft cannot apply the adapter to its base model"),
    ],
    ids=["layers", "width", "family"],
)
def test_a_base_model_that_an_adapter_does_not_fit_is_refused_in_three_lines(
    mar: Mar, root: Path, tmp_path: Path, family: str, shape: dict[str, int], said: str
) -> None:
    base = tiny.save(tmp_path / "other", family, "seq_classification", **shape)
    words = ("--model", root / "bert", "--set", f"handler.base_model={base}")
    refused(mar, tmp_path, words, said, "Set handler.base_model to the model that it was trained on")


def refused(mar: Mar, tmp_path: Path, words: tuple[Any, ...], *said: str, **env: str) -> None:
    """A build that is refused, and leaves nothing half-done."""
    support.refused(mar, tmp_path, words, *said, **env)
    assert not [path for path in (mar.cache / "tmp").glob("*") if path.is_dir()]


def cut(folder: Path, without: str) -> None:
    """Take tensors out of an adapter."""
    from safetensors.torch import load_file, save_file

    file = folder / "adapter_model.safetensors"
    kept = {name: tensor for name, tensor in load_file(file).items() if without not in name}
    save_file(kept, file, metadata={"format": "pt"})


def test_an_adapter_that_lacks_its_head_or_a_layers_weights_is_refused(mar: Mar, root: Path, tmp_path: Path) -> None:
    headless = shutil.copytree(root / "bert", tmp_path / "headless")
    cut(headless, "classifier")
    words = ("--model", headless, "--set", f"handler.base_model={root}/encoder")
    refused(mar, tmp_path, (*words, "--set", "handler.max_length=60"), "classifier")
    holed = shutil.copytree(root / "bert", tmp_path / "holed")
    cut(holed, "layer.0.attention.self.query.lora_B")
    words = ("--model", holed, "--set", f"handler.base_model={root}/encoder")
    refused(mar, tmp_path, words, "it has no bert.encoder.layer.0.attention.self.query.lora_B")


def test_an_adapter_that_is_a_prompt_cannot_be_merged(mar: Mar, root: Path, tmp_path: Path) -> None:
    import peft

    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    made = peft.get_peft_model(writer(root / "gpt2"), config)
    made.save_pretrained(tmp_path / "prompt")
    words = ("--model", tmp_path / "prompt", "--set", f"handler.base_model={root}/gpt2")
    refused(mar, tmp_path, words, "PROMPT_TUNING", "cannot be merged")


def test_without_peft_the_package_to_install_is_named(mar: Mar, root: Path, tmp_path: Path) -> None:
    (tmp_path / "absent/peft").mkdir(parents=True)
    (tmp_path / "absent/peft/__init__.py").write_text("raise ModuleNotFoundError(\"No module named 'peft'\")")
    words = ("--model", root / "bert", "--set", "handler.labels=[a, b, c]")
    refused(mar, tmp_path, words, "pip install 'mar-pipeline[peft]'", PYTHONPATH=str(tmp_path / "absent"))


def test_a_base_model_that_is_not_there_is_refused_with_what_to_set(
    mar: Mar, hub: Hub, root: Path, tmp_path: Path
) -> None:
    gone = shutil.copytree(root / "bert", tmp_path / "gone")
    refused(mar, tmp_path, ("--model", gone), "no such folder: ../encoder", "handler.base_model")
    refused(mar, tmp_path, ("--model", root / "text"), "/where/it/was/trained", "handler.base_model")
    nameless = shutil.copytree(root / "bert", tmp_path / "nameless")
    told = json.loads((nameless / "adapter_config.json").read_text())
    (nameless / "adapter_config.json").write_text(json.dumps({**told, "base_model_name_or_path": None}))
    refused(mar, tmp_path, ("--model", nameless), "names no base model", "Set handler.base_model")
    # Which then helps.
    assert mar.plan("--model", nameless, "--set", f"handler.base_model={root}/encoder")["download"]["key"] is None
    itself = ("--model", root / "bert", "--set", f"handler.base_model={root}/text")
    refused(mar, tmp_path, itself, "is an adapter itself")
    absent = ("--model", root / "bert", "--set", "handler.base_model=org/nothing")
    refused(mar, tmp_path, absent, "org/nothing does not exist on the Hub", **online(mar, hub))


def test_an_adapter_of_the_hub_chooses_no_folder_of_this_machine(
    mar: Mar, hub: Hub, root: Path, tmp_path: Path
) -> None:
    for name, base in (("path", "../encoder"), ("absolute", str(root / "encoder")), ("url", "s3://bucket/model")):
        folder = shutil.copytree(root / "bert", tmp_path / name)
        told = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps({**told, "base_model_name_or_path": base}))
        hub.add(f"org/{name}", folder)
        refused(mar, tmp_path, ("--model", f"org/{name}"), "base model", "Set handler.base_model", **online(mar, hub))
    # A folder that is called like a model of the Hub is not meant by it.
    shutil.copytree(root / "encoder", mar.folder / "nobody")
    told["base_model_name_or_path"] = "nobody"
    (folder / "adapter_config.json").write_text(json.dumps(told))
    hub.add("org/namesake", folder)
    refused(mar, tmp_path, ("--model", "org/namesake"), "nobody does not exist on the Hub", **online(mar, hub))


def test_an_adapter_for_another_task_is_refused_with_its_own(mar: Mar, root: Path, tmp_path: Path) -> None:
    words = ("--model", root / "bert", "--task", "token_classification")
    refused(mar, tmp_path, words, "is an adapter for seq_classification, not for token_cl", "--task seq_classification")


def test_another_base_model_is_another_download(mar: Mar, hub: Hub, root: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    base = shutil.copytree(root / "encoder", tmp_path / "encoder")
    folder = shutil.copytree(root / "bert", tmp_path / "bert")
    keys = [key(mar, "--model", folder)]
    weights = load_file(base / "model.safetensors")
    save_file({name: tensor * 2 for name, tensor in weights.items()}, base / "model.safetensors", {"format": "pt"})
    keys.append(key(mar, "--model", folder))
    name = ("--model", folder, "--set", "handler.base_model=org/moves")
    for model in (root / "encoder", base):
        hub.add("org/moves", model)
        keys.append(key(mar, *name, **online(mar, hub)))
    assert len(set(keys)) == 4


def key(mar: Mar, *words: Any, **env: str) -> str:
    """The download stage's, of a build that stops behind it: another has asked for as many labels as nobody has."""
    done = mar("build", *words, "--set", "handler.num_labels=99", **env)
    assert done.returncode == 2, done.stderr
    return str(mar.plan(*words, **env)["download"]["key"])


ATTENTION = ["query", "value", "q_lin", "v_lin", "q", "v", "c_attn", "query_proj", "value_proj"]
"""What the layers of attention are called, in one family or another."""


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "electra", "albert", "gpt2", "deberta-v2", "mpnet"])
def test_the_number_of_labels_is_read_from_the_head_that_came_with_an_adapter(name: str, tmp_path: Path) -> None:
    from mar_pipeline.model import adapter
    from mar_pipeline.model.checkpoint import tensors

    for task, kind in (("seq_classification", "SEQ_CLS"), ("token_classification", "TOKEN_CLS")):
        if not tiny.has(name, task):
            continue
        model = tiny.save(tmp_path / task, name, task, num_labels=5)
        import transformers

        loaded = getattr(transformers, tiny.AUTO[task]).from_pretrained(model)
        folder = save(tmp_path / f"{task}-adapter", loaded, "x", task_type=kind, target_modules=ATTENTION)
        assert adapter.labels(tensors(folder / "adapter_model.safetensors", "x")) == 5, task


def test_weights_of_lora_itself_are_no_head() -> None:
    from mar_pipeline.model import adapter

    tensor = {"dtype": "F32", "shape": [4, 8], "data_offsets": [0, 128]}
    assert adapter.labels({"base_model.model.classifier.lora_A.weight": tensor}) is None
    assert adapter.labels({"base_model.model.x.out_proj.lora_B.weight": tensor}) is None


def test_digests_of_the_adapter_and_of_its_base_are_in_the_record(mar: Mar, root: Path) -> None:
    import peft

    (archive,) = mar.build("--model", root / "bert")
    record = json.loads(mar("inspect", mar.folder / archive["path"], "--json").stdout)["provenance"]
    assert record["versions"]["peft"] == peft.__version__
    told = record["checkpoint"]
    for name, file in {
        "adapter/adapter_model.safetensors": root / "bert/adapter_model.safetensors",
        "model.safetensors": root / "encoder/model.safetensors",
    }.items():
        assert told[name] == hashlib.sha256(file.read_bytes()).hexdigest()

"""Models with code of their own: it runs only if it is trusted and pinned, and then it is in the archive."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import bare_handler, tiny
from tests.support import mar as support
from tests.support.mar import Mar
from tests.support.stand_ins.hub import Hub, running

pytestmark = pytest.mark.slow

CODE = {
    "configuration_own.py": """
from transformers import PretrainedConfig


class OwnConfig(PretrainedConfig):
    model_type = "own"

    def __init__(self, vocab_size=200, hidden_size=8, **kwargs):
        self.vocab_size, self.hidden_size = vocab_size, hidden_size
        super().__init__(**kwargs)
""",
    "layers_own.py": """
def mean(states, mask):
    mask = mask[..., None].to(states.dtype)
    return (states * mask).sum(1) / mask.sum(1).clamp(min=1)
""",
    # Each process that imports it leaves a line.
    "modeling_own.py": """
import os
from pathlib import Path

import torch
from transformers import PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from .configuration_own import OwnConfig
from .layers_own import mean

with Path(os.environ["OWN_CODE_RAN"]).open("a") as marker:
    marker.write(__file__ + "\\n")


class OwnForSequenceClassification(PreTrainedModel):
    config_class = OwnConfig

    def __init__(self, config):
        super().__init__(config)
        self.embeddings = torch.nn.Embedding(config.vocab_size, config.hidden_size)
        self.classifier = torch.nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def get_input_embeddings(self):
        return self.embeddings

    def forward(self, input_ids=None, attention_mask=None, return_dict=None, **_):
        return SequenceClassifierOutput(logits=self.classifier(mean(self.embeddings(input_ids), attention_mask)))
""",
    # Code that the model does not need, and that must not be run either.
    "setup.py": "raise SystemExit('setup')",
    "training/train.py": "raise SystemExit('train')",
}
PACKED = ["configuration_own.py", "layers_own.py", "modeling_own.py"]
AUTO_MAP = {
    "AutoConfig": "configuration_own.OwnConfig",
    "AutoModelForSequenceClassification": "modeling_own.OwnForSequenceClassification",
}
TEXTS = ["The soup was good", "a kind old man, not awful", "bad"]
TRUSTED = ("--set", "handler.trust_remote_code=true")


def weights(vocabulary: int) -> dict[str, Any]:
    import torch

    torch.manual_seed(3)
    embeddings = torch.randn(vocabulary, 8)
    return {"embeddings.weight": embeddings, "classifier.weight": torch.randn(2, 8), "classifier.bias": torch.randn(2)}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("models") / "own"
    tiny.save(folder, "bert", "seq_classification")
    vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
    for name, text in CODE.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    config = {
        "model_type": "own", "architectures": ["OwnForSequenceClassification"], "auto_map": AUTO_MAP,
        "vocab_size": vocabulary, "hidden_size": 8, "max_position_embeddings": 64,
        "id2label": {"0": "no", "1": "yes"}, "label2id": {"no": 0, "yes": 1},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights(vocabulary), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def expected(own: Path) -> list[dict[str, Any]]:
    """The answers, by arithmetic on the weights."""
    import torch
    from safetensors.torch import load_file
    from tokenizers import Tokenizer

    tensors, tokenizer = load_file(own / "model.safetensors"), Tokenizer.from_file(str(own / "tokenizer.json"))
    found = []
    for text in TEXTS:
        mean = tensors["embeddings.weight"][torch.tensor(tokenizer.encode(text).ids)].mean(0)
        scores = (tensors["classifier.weight"] @ mean + tensors["classifier.bias"]).softmax(-1)
        found.append(
            {"label": ["no", "yes"][int(scores.argmax())], "score": pytest.approx(scores.max().item(), abs=1e-5)}
        )
    return found


@pytest.fixture(scope="module")
def mar(tmp_path_factory: pytest.TempPathFactory) -> Mar:
    """One whose models leave lines in the file "ran"."""
    found = Mar(tmp_path_factory.mktemp("mar"))
    found.env |= {"OWN_CODE_RAN": str(found.folder / "ran"), "MAR_PASS_ENV": "OWN_CODE_RAN"}
    return found


def ran(mar: Mar) -> list[str]:
    """Where the code that ran lay, of each run since this was asked last."""
    file = mar.folder / "ran"
    lines = file.read_text().splitlines() if file.exists() else []
    file.unlink(missing_ok=True)
    return lines


@pytest.fixture(scope="module")
def hub(own: Path) -> Iterator[Hub]:
    with running() as found:
        found.add("org/own", own, license="mit")
        yield found


def online(mar: Mar, hub: Hub) -> dict[str, str]:
    return {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.address, "HF_HOME": str(mar.folder / "hub")}


@pytest.fixture(scope="module")
def built(mar: Mar, own: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of a folder that is there no more."""
    folder = shutil.copytree(own, tmp_path_factory.mktemp("gone") / "own")
    (archive,) = mar.build("--model", folder, *TRUSTED)
    shutil.rmtree(folder)
    return shutil.copyfile(mar.folder / archive["path"], mar.folder / "own.mar")


def refused(mar: Mar, tmp_path: Path, words: tuple[Any, ...], *said: str, **env: str) -> None:
    """A build that is refused, and in which none of the model's code ran."""
    ran(mar)
    support.refused(mar, tmp_path, words, *said, **env)
    assert not ran(mar)


def asked(mar: Mar, archive: Path, **env: str) -> list[Any]:
    done = mar("run", archive, "--input", json.dumps(TEXTS), "--json", **env)
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


@pytest.mark.parametrize("mode", ["pretrained", "torchscript"])
def test_code_that_nobody_trusted_is_refused_and_has_not_run(mar: Mar, own: Path, tmp_path: Path, mode: str) -> None:
    words = ("--model", own, "--save-mode", mode)
    refused(mar, tmp_path, words, "The model needs its own code", "handler.trust_remote_code: true")


def test_trusted_code_is_packed_with_what_it_imports_and_is_in_the_record(mar: Mar, own: Path, built: Path) -> None:
    with zipfile.ZipFile(built) as packed:
        code = {name: packed.read(name) for name in packed.namelist() if "own" in name or "/" not in name}
    assert sorted(name for name in code if name.endswith(".py")) == [*PACKED, "seq_classification.py"]
    assert {name: code[name] for name in PACKED} == {name: (own / name).read_bytes() for name in PACKED}
    told = json.loads(mar("inspect", built, "--json").stdout)["provenance"]
    assert told["source"] == {"kind": "folder", "remote_code": PACKED}
    for name in PACKED:
        assert told["checkpoint"][name] == told["files"][name] == hashlib.sha256(code[name]).hexdigest()


def test_an_archive_answers_by_its_own_copy_of_the_code(mar: Mar, own: Path, built: Path, tmp_path: Path) -> None:
    ran(mar)
    modules = tmp_path / "modules"
    assert asked(mar, built, HF_MODULES_CACHE=str(modules)) == expected(own)
    (place,) = ran(mar)
    # The folder of transformers' copies is the worker's own, and goes with it.
    assert str(own) not in place
    assert not Path(place).exists()
    assert not (mar.folder / "hf").exists()


def served(archive: Path, folder: Path, **env: str) -> list[Any]:
    """The answers of an unpacked archive's handler, as TorchServe's worker calls it: no variable of ours is set."""
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(folder)
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "MAR_"))}
    settings = {"batchSize": 1, "handler": json.loads(json.dumps(_handler(folder)))}
    job = [{"folder": str(folder), "settings": settings, "batches": [[text] for text in TEXTS]}]
    done = subprocess.run(
        [sys.executable, bare_handler.__file__],
        input=json.dumps(job),
        env={**bare, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [replies[0] for replies in json.loads(done.stdout)["answers"][0]["replies"]]


def _handler(folder: Path) -> Any:
    import yaml

    return yaml.safe_load((folder / "model-config.yaml").read_text())["handler"]


def test_a_server_whose_home_cannot_be_written_to_loads_the_code_all_the_same(
    own: Path, built: Path, tmp_path: Path
) -> None:
    (tmp_path / "temporary").mkdir()
    env = {
        "HOME": "/proc/none",
        "HF_HOME": "/proc/none",
        "TMPDIR": str(tmp_path / "temporary"),
        "OWN_CODE_RAN": str(tmp_path / "ran"),
    }
    assert served(built, tmp_path / "unpacked", **env) == expected(own)
    (place,) = (tmp_path / "ran").read_text().splitlines()
    assert Path(place).is_relative_to(tmp_path / "temporary")
    assert not list((tmp_path / "temporary").glob("mar-code-*"))


def test_a_trace_of_a_model_with_code_answers_without_the_code(mar: Mar, own: Path) -> None:
    (archive,) = mar.build("--model", own, *TRUSTED, "--save-mode", "torchscript")
    ran(mar)
    assert asked(mar, mar.folder / archive["path"]) == expected(own)
    assert not ran(mar)
    told = json.loads(mar("inspect", mar.folder / archive["path"], "--json").stdout)["provenance"]
    assert told["source"]["remote_code"] == PACKED
    assert "ran when it was traced" in mar("check", mar.folder / archive["path"]).stdout


def test_code_of_the_hub_runs_from_a_commit_and_from_nothing_that_moves(
    mar: Mar, hub: Hub, own: Path, tmp_path: Path
) -> None:
    words, env = ("--model", "org/own", *TRUSTED), online(mar, hub)
    commit = hub.models["org/own"]["commit"]
    for revision in ((), ("--revision", "main")):
        refused(mar, tmp_path, (*words, *revision), "can change any day", "handler.revision", "mar lock", **env)
    # At a commit, but not trusted: nothing of the code is even fetched.
    before = len(hub.asked)
    untrusted = ("--model", "org/own", "--revision", commit)
    refused(mar, tmp_path, untrusted, "The model needs its own code", **env)
    assert not [line for line in hub.asked[before:] if line.endswith(".py")]
    (archive,) = mar.build(*words, "--revision", commit, **env)
    source = {"kind": "hub", "repo": "org/own", "commit": commit, "license": "mit", "remote_code": PACKED}
    assert archive["source"] == source
    fetched = {line.rpartition("/")[2] for line in hub.asked if line.startswith("GET") and line.endswith(".py")}
    assert fetched == set(PACKED)
    assert asked(mar, mar.folder / archive["path"]) == expected(own)


def test_a_lock_pins_code_as_a_commit_does(mar: Mar, hub: Hub, own: Path, tmp_path: Path) -> None:
    env = online(mar, hub)
    config = tmp_path / "own.yaml"
    config.write_text("handler: {model_name: org/own, mode: sequence_classification, trust_remote_code: true}")
    refused(mar, tmp_path, (config,), "can change any day", **env)
    done = mar("lock", config, **env)
    assert done.returncode == 0, done.stderr
    assert set(PACKED) < json.loads((tmp_path / "own.yaml.lock").read_text())["files"].keys()
    newer = shutil.copytree(own, tmp_path / "newer")
    (newer / "layers_own.py").write_text("raise SystemExit('another day')")
    hub.add("org/own", newer)
    try:
        (archive,) = mar.build(config, **env)
    finally:
        hub.add("org/own", own, license="mit")
    assert archive["locked"] is True
    assert asked(mar, mar.folder / archive["path"]) == expected(own)


def test_the_base_model_of_an_adapter_has_its_code_pinned_too(mar: Mar, hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    told = {"base_model_name_or_path": "org/own", "task_type": "SEQ_CLS"}
    (tmp_path / "adapter/adapter_config.json").write_text(json.dumps(told))
    (tmp_path / "adapter/adapter_model.safetensors").write_bytes(b"")
    words = ("--model", tmp_path / "adapter", *TRUSTED)
    refused(mar, tmp_path, words, "org/own at main can change any day", "handler.base_revision", **online(mar, hub))


def test_code_out_of_another_repository_is_refused_with_the_setting_too(mar: Mar, own: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(own, tmp_path / "own")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"]["AutoConfig"] = "org/own--configuration_own.OwnConfig"
    (folder / "config.json").write_text(json.dumps(config))
    refused(mar, tmp_path, ("--model", folder, *TRUSTED), "another repository (org/own--configuration_own.OwnConfig)")


def test_code_of_a_name_that_the_archive_has_for_its_own_is_refused(mar: Mar, own: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(own, tmp_path / "own")
    (folder / "modeling_own.py").rename(folder / "seq_classification.py")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"]["AutoModelForSequenceClassification"] = "seq_classification.OwnForSequenceClassification"
    (folder / "config.json").write_text(json.dumps(config))
    refused(mar, tmp_path, ("--model", folder, *TRUSTED), "has code in seq_classification.py", "Rename it")


def test_code_that_fails_is_told_in_three_lines(mar: Mar, own: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(own, tmp_path / "own")
    (folder / "layers_own.py").write_text("import a_package_that_nobody_has")
    words = ("--model", folder, *TRUSTED, "--save-mode", "torchscript")
    refused(mar, tmp_path, words, "a_package_that_nobody_has")
    (folder / "layers_own.py").write_text("mean = {}['nothing']")
    refused(mar, tmp_path, words, "cannot load this checkpoint", "'nothing'")


def test_mar_check_names_the_code_and_finds_no_fault_in_it(mar: Mar, built: Path) -> None:
    done = mar("check", built, "--json")
    assert done.returncode == 0, done.stdout
    found = json.loads(done.stdout)
    assert (found["errors"], found["warnings"], found["notes"]) == (0, 0, 1)
    (note,) = found["findings"]
    assert note["level"] == "note"
    assert "configuration_own.py, layers_own.py, modeling_own.py" in note["what"]
    # And if somebody changes it, or adds some.
    for name, said in (("layers_own.py", "is not the file that was built"), ("more_own.py", "is not in the record")):
        other = changed(built, mar.folder / "changed.mar", name, "print('more')")
        done = mar("check", other)
        assert done.returncode == 2
        assert f"error: {name} {said}" in done.stdout + done.stderr


def changed(archive: Path, target: Path, name: str, text: str) -> Path:
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(target, "w") as new:
        for info in old.infolist():
            if info.filename != name:
                new.writestr(info, old.read(info))
        new.writestr(name, text)
    return target


def test_mar_inspect_and_diff_tell_of_the_code(mar: Mar, built: Path) -> None:
    shown = mar("inspect", built).stdout
    assert "remote_code" in shown
    assert all(name in shown for name in PACKED)
    other = changed(built, mar.folder / "changed.mar", "layers_own.py", CODE["layers_own.py"] + "\n# another\n")
    done = mar("diff", built, other)
    assert done.returncode == 5
    assert "handler code: layers_own.py differs" in done.stdout
    assert "The answers may differ." in done.stdout

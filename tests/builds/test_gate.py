"""What the gate refuses that a few samples, asked once and alone, would not show."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.builds.test_own_code import AUTO_MAP, CODE, TRUSTED, weights
from tests.support import tiny
from tests.support.mar import MODES, Mar

pytestmark = pytest.mark.slow

KINDS = {
    # More tokens than the trial has, by which a handler finds out whether texts need runs of their own.
    "beside": (
        "logits + (logits.shape[0] > 1 and input_ids.shape[1] > 40) * 0.5 * torch.tensor([0.0, 1.0])",
        4,
        ["in batches", "OwnForSequenceClassification depend on the other texts of a batch"],
    ),
    # State that no module has.
    "before": (
        "logits + len(SEEN.append(0) or SEEN) * torch.tensor([0.0, 0.1])",
        4,
        ["OwnForSequenceClassification depend on what was asked before"],
    ),
    "random": (
        "logits + torch.rand(2)",
        4,
        ["the original model itself (OwnForSequenceClassification) answers the same samples differently"],
    ),
    "fails": (
        "logits if input_ids.shape[1] < 40 else 1 / 0",
        2,
        ["The original model cannot answer sample 3: ZeroDivisionError", "handler.max_length if only long texts fail"],
    ),
    "infinite": (
        "logits if input_ids.shape[1] < 40 else logits * float('inf')",
        2,
        ["The original model's logits for sample 3 are NaN or infinite.", "bfloat16 instead of float16"],
    ),
}


def own(folder: Path, logits: str) -> Path:
    """A model with code of its own, whose logits are those of `test_own_code`, changed."""
    from safetensors.torch import save_file

    tiny.save(folder, "bert", "seq_classification")
    vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
    for name in ("configuration_own.py", "layers_own.py", "modeling_own.py"):
        (folder / name).write_text(CODE[name])
    code, marker, returned = CODE["modeling_own.py"].partition("with Path(os.environ")
    code += "SEEN = []\n\n\n" + (marker + returned).partition("\n\n\n")[2]
    before, _, _ = code.partition("        return SequenceClassifierOutput(")
    code = f"{before}        logits = self.classifier(mean(self.embeddings(input_ids), attention_mask))\n"
    (folder / "modeling_own.py").write_text(f"{code}        return SequenceClassifierOutput(logits={logits})\n")
    config: dict[str, Any] = {
        "model_type": "own", "architectures": ["OwnForSequenceClassification"], "auto_map": AUTO_MAP,
        "vocab_size": vocabulary, "hidden_size": 8, "max_position_embeddings": 64,
        "id2label": {"0": "no", "1": "yes"}, "label2id": {"no": 0, "yes": 1},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights(vocabulary), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_cannot_be_served_is_refused_with_the_cause(mar: Mar, kind: str, tmp_path: Path) -> None:
    logits, code, said = KINDS[kind]
    done = mar("build", "--model", own(tmp_path / f"own-{kind}", logits), *TRUSTED, "--out", tmp_path / "out")
    assert done.returncode == code, done.stderr
    error = " ".join(done.stderr.partition("error: ")[2].split())
    for words in said:
        assert words in error
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "out").rglob("*.mar"))


@pytest.mark.parametrize("mode", MODES)
def test_a_model_that_fails_by_itself_is_not_sent_to_another_save_mode(mar: Mar, mode: str, tmp_path: Path) -> None:
    folder = own(tmp_path / f"own-{mode}", "1 / 0")
    done = mar("build", "--model", folder, *TRUSTED, "--save-mode", mode, "--out", tmp_path / "out")
    assert done.returncode == 2, done.stderr
    error = done.stderr.partition("error: ")[2]
    assert error.startswith("The original model cannot answer")
    assert "ZeroDivisionError: division by zero" in error
    assert "save_mode" not in error


def test_what_was_compared_is_in_the_report(mar: Mar, bert: Path, tmp_path: Path) -> None:
    done = mar("build", "--model", bert, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    (report,) = (tmp_path / "out" / "reports").iterdir()
    found = json.loads(report.read_text())
    assert found["verified"]
    # Each sample alone twice; all together, and the shortest beside each of the two longest.
    assert found["compared"] == {"samples": 5, "alone": 10, "batches": 3}


def test_transformers_chooses_the_originals_weights_in_the_users_own_folder(bert: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import pipeline

    from mar_pipeline.workers import reference

    folders = [shutil.copytree(bert, tmp_path / name) for name in ("taken", "users")]
    weights = load_file(bert / "model.safetensors")
    weights["classifier.bias"] += torch.tensor([1.0, -1.0])
    save_file(weights, folders[1] / "model.safetensors", metadata={"format": "pt"})
    job = {
        "checkpoint": str(folders[0]),
        "auto_class": "AutoModelForSequenceClassification",
        "allow_untrained_head": False,
        "task": "seq_classification",
        "requests": [{"text": "the room was good"}],
        "settings": {"max_length": 64},
    }
    for source, folder in ((None, folders[0]), (str(folders[1]), folders[1])):
        (answer,) = reference.answers({**job, "source": source}, lambda *_: None)
        (wanted,) = pipeline("text-classification", model=str(folder))("the room was good")
        assert answer == {"label": wanted["label"], "score": pytest.approx(wanted["score"], abs=1e-5)}

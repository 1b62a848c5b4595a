"""Explanations: integrated gradients, against gradients that are summed up here."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest

pytest.importorskip("captum")

from handlers.protocol.schema import EXPLANATION
from tests.support import tiny
from tests.support.unpacked import Served, lay_out

pytestmark = pytest.mark.slow

FAMILIES = ("bert", "roberta", "distilbert", "electra", "albert")
BODIES: dict[str, dict[str, Any]] = {
    "seq_classification": {"text": "the old man 😀 opened a door", "text_pair": "He saw a cat"},
    "token_classification": {"text": "the old man 😀 opened a door"},
    "question_answering": {"question": "who opened it", "context": "the old man opened the door and saw a cat"},
    "text_generation": {"prompt": "the old man opened"},
}


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Ask a tiny archive for an explanation: (family, task, mode) -> the handler."""
    made: dict[tuple[str, str, str], Served] = {}

    def served(family: str, task: str, mode: str = "pretrained") -> Served:
        key = (family, task, mode)
        if key not in made:
            folder = tmp_path_factory.mktemp("explained")
            checkpoint = tiny.save(folder / "checkpoint", family, task)
            made[key] = Served(lay_out(folder / "archive", checkpoint, task, mode), task)
            made[key].context.explain = True
        return made[key]

    return served


KINDS = [(family, task) for task in BODIES if task != "text_generation" for family in FAMILIES]
KINDS += [("gpt2", "text_generation"), ("llama", "text_generation"), ("gpt2", "seq_classification")]


@pytest.mark.parametrize(("family", "task"), KINDS, ids=lambda word: word)
def test_the_importances_add_up_and_have_their_places(asked: Any, family: str, task: str) -> None:
    body = {**BODIES[task], "steps": 200}
    (told,) = asked(family, task)(body)
    jsonschema.validate(told, EXPLANATION)
    total = sum(token["importance"] for token in told["tokens"])
    assert total == pytest.approx(told["value"] - told["baseline"] + told["delta"], abs=1e-3)
    assert abs(told["delta"]) < 0.05 * max(1.0, abs(told["value"] - told["baseline"]))
    assert max(abs(token["importance"]) for token in told["tokens"]) > 1e-3
    for word in told["words"]:
        assert body[word["field"]][word["start"] : word["end"]] == word["text"]
    assert {word["field"] for word in told["words"]} == set(BODIES[task])


def test_the_importances_are_those_of_gradients_summed_up_by_hand(asked: Any) -> None:
    import torch

    handler = asked("bert", "seq_classification")
    (told,) = handler({"text": "the old man opened a door", "target": "positive", "steps": 100})
    model, tokenizer = handler.handler.model.model, handler.handler.tokenizer
    (encoding,) = tokenizer.encode(["the old man opened a door"], None)
    ids = torch.tensor([encoding.ids])
    empty = ids.where(torch.tensor([encoding.special_tokens_mask]).bool(), torch.tensor(tokenizer.pad))
    table = model.get_input_embeddings()
    full, none = table(ids).detach(), table(empty).detach()
    steps, total = 400, torch.zeros_like(full)
    for step in range(steps):
        point = (none + (full - none) * (step + 0.5) / steps).requires_grad_()
        score = model(inputs_embeds=point, attention_mask=torch.ones_like(ids)).logits[0, 1]
        total += torch.autograd.grad(score, point)[0]
    expected = ((full - none) * total / steps).sum(-1)[0].tolist()
    assert [token["importance"] for token in told["tokens"]] == pytest.approx(expected, abs=0.01)


def test_a_target_can_be_chosen(asked: Any) -> None:
    labels = asked("bert", "seq_classification").handler.labels
    replies = [asked("bert", "seq_classification")({"text": "a cat", "target": name})[0] for name in labels]
    assert [reply["target"] for reply in replies] == labels
    assert len({reply["value"] for reply in replies}) == len(labels)
    (told,) = asked("bert", "token_classification")({"text": "the old man", "at": 5})
    assert told["target"] != "O"
    (told,) = asked("bert", "question_answering")({**BODIES["question_answering"], "target": "saw a cat"})
    assert told["target"] == "saw a cat"


def test_a_target_can_be_a_number(asked: Any) -> None:
    """As in TorchServe's example for transformers: a label's, a token's and a label's, a token's, a token's id."""
    import torch

    handler = asked("bert", "seq_classification")
    for number, name in enumerate(handler.handler.labels):
        by_name, by_number, by_text = handler(
            *({"text": "a cat", "target": each} for each in (name, number, str(number)))
        )
        assert by_name["target"] == name
        assert by_name == by_number == by_text
    for task, body, target in (
        ("token_classification", BODIES["token_classification"], [2, 1]),
        ("question_answering", BODIES["question_answering"], 3),
        ("text_generation", BODIES["text_generation"], 5),
    ):
        handler = asked("gpt2" if task == "text_generation" else "bert", task)
        (told,) = handler({**body, "target": target})
        model, tokenizer = handler.handler.model.model, handler.handler.tokenizer
        texts = tuple(body.values()) if len(body) > 1 else next(iter(body.values()))
        (encoding,) = tokenizer.encode([texts], None)
        with torch.inference_mode():
            out = model(
                **{
                    name: value
                    for name, value in tokenizer.batch([encoding]).items()
                    if name in handler.handler.model.inputs
                }
            )
        wanted = {
            "token_classification": lambda out: out.logits[0, 2, 1],
            "question_answering": lambda out: out.start_logits[0, 3] + out.end_logits[0, 3],
            "text_generation": lambda out: out.logits[0, -1, 5],
        }[task](out)
        assert told["value"] == pytest.approx(float(wanted), abs=1e-4)


@pytest.mark.parametrize(
    ("task", "body", "status", "field"),
    [
        ("seq_classification", {"text": "a", "target": "none"}, 400, "target"),
        ("seq_classification", {"text": "a", "target": 2}, 400, "target"),
        ("seq_classification", {"text": "a", "target": "2"}, 400, "target"),
        ("seq_classification", {"text": "a", "target": "9" * 5000}, 400, "target"),
        ("token_classification", {"text": "a", "target": [99, 0]}, 400, "target"),
        ("token_classification", {"text": "a", "target": [0, 99]}, 400, "target"),
        ("question_answering", {"question": "a", "context": "a", "target": 99}, 400, "target"),
        ("seq_classification", {"text": "a", "top_k": 2}, 400, "top_k"),
        ("seq_classification", {"text": "a", "steps": 0}, 400, "steps"),
        ("token_classification", {"text": "a", "at": 9}, 400, "at"),
        ("question_answering", {"question": "a", "context": "a", "target": "b"}, 400, "target"),
    ],
)
def test_a_bad_request_for_an_explanation_is_told_why(
    asked: Any, task: str, body: dict[str, Any], status: int, field: str
) -> None:
    handler = asked("bert", task)
    (reply,) = handler(body)
    assert handler.codes == {0: status}
    assert reply["error"]["field"] == field


def test_a_trace_says_what_to_build_instead(asked: Any) -> None:
    handler = asked("bert", "seq_classification", "torchscript")
    (reply,) = handler({"text": "a cat"})
    assert handler.codes == {0: 501}
    assert "save_mode: pretrained" in reply["error"]["message"]

"""Requests: parsed and checked one by one, by the tables that the archive's schema.json is made of."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import jsonschema
import pytest

from handlers.protocol.problem import Problem
from handlers.protocol.requests import parse
from handlers.protocol.schema import INPUTS, MAX_INPUTS, PLAIN, schema
from mar_pipeline.tasks import TASKS

GOOD = {
    "seq_classification": {"text": "Fine.", "text_pair": "Really?", "top_k": 2},
    "token_classification": {"text": "Anna.", "aggregation_strategy": "first"},
    "question_answering": {"question": "Who?", "context": "Anna.", "max_answer_length": 5},
    "text_generation": {"prompt": "Once", "parameters": {"max_new_tokens": 3, "stop": ["."], "temperature": 0.5}},
}
SEQ = "seq_classification"


@pytest.mark.parametrize("task", TASKS)
def test_json_is_taken_with_its_header_or_as_bytes(task: str) -> None:
    body = GOOD[task]
    for row in (
        {"body": body},
        {"data": body},
        {"body": json.dumps(body).encode()},
        {"body": bytearray(json.dumps(body), "utf-8")},
    ):
        request = parse(row, task)
        assert request.inputs == [body]
        assert request.form == "one"


@pytest.mark.parametrize("task", TASKS)
def test_plain_text_is_taken_where_it_is_enough(task: str) -> None:
    for text in ('Grüße, [laughs] "quoted" 😀', '"Great" they said'):
        if PLAIN[task]:
            assert parse({"body": text.encode()}, task).inputs == [{PLAIN[task]: text}]
        else:
            with pytest.raises(Problem, match=r"expected an object with question, context|not JSON"):
                parse({"body": text.encode()}, task)


def test_a_list_and_kserves_instances_are_many_inputs_in_one_request() -> None:
    many = parse({"body": ["a", {"text": "b"}]}, SEQ)
    assert (many.inputs, many.form) == ([{"text": "a"}, {"text": "b"}], "many")
    instances = parse({"body": {"instances": ["a"]}}, SEQ)
    instances.answers = [1]
    assert instances.answer("tiny") == {"predictions": [1]}


def tensor(name: str, data: list[Any], datatype: str = "BYTES", shape: list[int] | None = None) -> dict[str, Any]:
    return {"name": name, "shape": [len(data)] if shape is None else shape, "datatype": datatype, "data": data}


def test_kserves_second_protocol_has_a_tensor_for_each_field() -> None:
    body = {
        "id": "seven",
        "inputs": [tensor("text", ["a", "b"]), tensor("text_pair", [["c"], ["d"]], shape=[2, 1])],
        "parameters": {"top_k": 2},
    }
    request = parse({"body": body}, SEQ)
    assert request.inputs == [
        {"text": "a", "text_pair": "c", "top_k": 2},
        {"text": "b", "text_pair": "d", "top_k": 2},
    ]
    request.answers = [{"label": "ü"}, {"label": "y"}]
    reply = request.answer("tiny")
    (answers,) = reply["outputs"]
    assert (reply["id"], reply["model_name"], answers["shape"], answers["datatype"]) == ("seven", "tiny", [2], "BYTES")
    assert [json.loads(text) for text in answers["data"]] == request.answers
    jsonschema.validate(reply["outputs"], schema(SEQ)["response"]["anyOf"][3]["properties"]["outputs"])
    jsonschema.validate(body, schema(SEQ)["request"])


def test_the_only_tensor_of_a_task_of_one_text_may_have_any_name() -> None:
    assert parse({"body": {"inputs": [tensor("input-0", ["a"])]}}, SEQ).inputs == [{"text": "a"}]
    with pytest.raises(Problem, match="unknown field"):
        parse({"body": {"inputs": [tensor("input-0", ["a"])]}}, "question_answering")


@pytest.mark.parametrize(
    ("inputs", "field", "said"),
    [
        ([], "inputs", "empty"),
        ([tensor("text", ["a"]), tensor("text_pair", ["b", "c"])], "inputs", "the same length"),
        ([tensor("text", ["a"]), tensor("text", ["b"])], "inputs[1]", "second tensor"),
        ([tensor("text", [])], "inputs[0].data", "empty"),
        ([tensor("text", ["a"] * 257)], "inputs[0].data", "257 items"),
        ([tensor("text", [["a", "b"]] * 200, shape=[400])], "inputs", "400 inputs"),
        ([tensor("text", [[]], shape=[1, 0])], "inputs", "empty"),
        ([tensor("text", ["a"], shape=[2])], "inputs[0]", "data has 1 values"),
        ([{**tensor("text", ["a"]), "x": 1}], "inputs[0].x", "unknown field"),
        ([tensor("text", ["a"], shape=[-1])], "inputs[0].shape[0]", "0 or more"),
        ([tensor("text", ["a"], shape=[1.5])], "inputs[0].shape[0]", "whole number"),
        ([tensor("text", ["a"], shape=[10**4000] * 1500)], "inputs[0]", "data has 1 values"),
        ([tensor("text", ["a"], shape=[*[10**4000] * 1500, 0])], "inputs[0]", "data has 1 values"),
        ([tensor("text", [5])], "inputs[0].data", "datatype BYTES"),
        ([tensor("text", ["a"], "STRING")], "inputs[0].datatype", "one of BYTES"),
        ([tensor("text", ["a"]), tensor("top_k", [True], "INT32")], "inputs[1].data", "datatype INT32"),
        ([tensor("text", ["a"]), tensor("top_k", [0], "INT32")], "inputs.row[0].top_k", "1 or more"),
        ([tensor("text", ["a", " "])], "inputs.row[1].text", "empty"),
        (["text"], "inputs[0]", "an object"),
        ([{**tensor("text", []), "data": "a"}], "inputs[0].data", "a list"),
    ],
)
def test_a_tensor_at_fault_is_named(inputs: list[Any], field: str, said: str) -> None:
    with pytest.raises(Problem, match=re.escape(said)) as raised:
        parse({"body": {"inputs": inputs}}, SEQ)
    assert raised.value.field == field


@pytest.mark.parametrize(
    ("others", "field"),
    [
        *(({"id": value}, "id") for value in (None, 5, float("nan"), ["a"])),
        *(({"parameters": value}, "parameters") for value in (None, [], "", 0)),
        ({"outputs": {}}, "outputs"),
        ({"outputs": [1]}, "outputs[0]"),
        ({"model": "a"}, "model"),
        ({"inputs": "a"}, "inputs"),
    ],
)
def test_what_stands_beside_tensors_is_held_against_the_schema_too(others: dict[str, Any], field: str) -> None:
    body = {"inputs": [tensor("text", ["a"])], **others}
    with pytest.raises(Problem) as raised:
        parse({"body": body}, SEQ)
    assert raised.value.field == field
    assert not jsonschema.Draft202012Validator(schema(SEQ)["request"]).is_valid(body)


def test_the_packed_schema_and_the_check_agree_on_thousands_of_tensors() -> None:
    validator = jsonschema.Draft202012Validator(schema(SEQ)["request"])
    random_ = random.Random(4)
    values = [None, True, 0, 1, 1.0, 2.5, -1, "a", [], {}, ["a"], ["a"] * 257, [1], "INT8", "BYTES", {"a": 1}, [{}]]
    agreed = {True: 0, False: 0}
    for _ in range(3000):
        body: dict[str, Any] = {"id": "7", "inputs": [tensor("text", ["a"])], "parameters": {}, "outputs": []}
        for _ in range(random_.randint(0, 2)):
            target = random_.choice([body, body["inputs"][0]] if isinstance(body.get("inputs"), list) else [body])
            if not isinstance(target, dict):
                continue
            name = random_.choice([*target, "parameters", "unknown"])
            if random_.random() < 0.3 and name in target and name != "inputs":
                del target[name]
            elif target is not body or name != "inputs":
                target[name] = random_.choice(values)
        valid = validator.is_valid(body)
        try:
            parse({"body": body}, SEQ)
            ours = True
        except Problem as problem:
            # How long data is by its shape, and of what, and which fields a task has, no schema says.
            unseen = "match the shape|values of the datatype|unknown field; the fields are text,"
            ours = bool(re.search(unseen, problem.message))
        assert ours == valid, body
        agreed[ours] += 1
    assert min(agreed.values()) > 100


def test_a_tensor_of_whole_numbers_that_are_written_with_a_point_is_one() -> None:
    assert parse({"body": {"inputs": [tensor("text", ["a"], shape=[1.0, 1])]}}, SEQ).inputs == [{"text": "a"}]


def test_what_curl_sends_without_a_header_is_told_which_one_it_needs() -> None:
    # TorchServe cuts such a body at each = and &, as a form, and what it finds no name in it leaves out.
    for row in ({}, {'{"text": "Secret"}': b""}, {'{"text": "Secret ': b"", "sum": b"2"}):
        with pytest.raises(Problem, match="Content-Type: application/json") as raised:
            parse(row, SEQ)
        assert raised.value.field == ""
        assert "Secret" not in raised.value.message


@pytest.mark.parametrize("name", ["data", "body"])
def test_nothing_can_stand_beside_a_whole_body(name: str) -> None:
    with pytest.raises(Problem, match=f"URL parameter is allowed beside {name}") as raised:
        parse({name: b"fine", "top_k": b"2"}, SEQ)
    assert raised.value.field == "top_k"


def test_what_comes_as_text_is_json_if_it_is_an_object_or_a_list() -> None:
    assert parse({"body": '{"text": "a"}'}, SEQ).inputs == [{"text": "a"}]
    assert parse({"body": ' [{"text": "a"}]'}, SEQ).form == "many"
    assert parse({"body": '"a"'}, SEQ).inputs == [{"text": '"a"'}]


@pytest.mark.parametrize("kind", [str, lambda text: text.encode()])
def test_a_text_may_begin_with_a_bracket_and_broken_json_is_no_text(kind: Any) -> None:
    for text in ("[MASK] is a city.", "{hello} there", "[1] A note.", "[", "{"):
        assert parse({"body": kind(text)}, SEQ).inputs == [{"text": text}]
    broken = ('{"text": ', '{ "text": "a"} {', '[{"text": "a"', '["a", ', "{'text': 'a'}", "[{text: 1}]", "[" * 100_000)
    for text in broken:
        with pytest.raises(Problem, match="not JSON"):
            parse({"body": kind(text)}, SEQ)
    with pytest.raises(Problem, match="not JSON"):
        parse({"body": kind("{hello} there")}, "question_answering")


@pytest.mark.parametrize(
    ("task", "body", "field"),
    [
        ("text_generation", {"prompt": "a", "parameters": {"stop": ["a"] * 17}}, "parameters.stop"),
        ("text_generation", {"prompt": "a", "parameters": {"stop": ["a" * 1001]}}, "parameters.stop[0]"),
        ("text_generation", {"prompt": "a", "parameters": {"stop": "a" * 1001}}, "parameters.stop"),
        ("question_answering", {"question": "a", "context": "a", "top_k": 101}, "top_k"),
        ("question_answering", {"question": "a", "context": "a", "max_answer_length": 1001}, "max_answer_length"),
    ],
)
def test_what_would_take_much_work_is_limited(task: str, body: dict[str, Any], field: str) -> None:
    with pytest.raises(Problem) as raised:
        parse({"body": body}, task)
    assert raised.value.field == field
    assert not jsonschema.Draft202012Validator(schema(task)["request"]).is_valid(body)


def test_all_texts_of_a_request_have_a_million_characters_at_most() -> None:
    assert len(parse({"body": ["a" * 200_000] * 5}, SEQ).inputs) == 5
    for body, field in (["a" * 200_000] * 6, ""), ({"instances": ["a" * 200_000] * 6}, "instances"):
        with pytest.raises(Problem, match="1200000 characters") as raised:
            parse({"body": body}, SEQ)
        assert (raised.value.field, raised.value.status) == (field, 413)


def test_a_form_is_taken_field_by_field() -> None:
    assert parse({"text": b"one", "text_pair": b"two"}, SEQ).inputs == [{"text": "one", "text_pair": "two"}]


EVERY_FIELD = {
    "seq_classification": [GOOD[SEQ], {"text": "5", "text_pair": "true", "top_k": 2}],
    "token_classification": [{"text": "[1]", "aggregation_strategy": "max"}],
    "question_answering": [
        {"question": "1", "context": "2", "top_k": 3, "max_answer_length": 9, "handle_impossible_answer": flag}
        for flag in (True, False)
    ],
    "text_generation": [
        {
            "prompt": "12",
            "stream": True,
            "parameters": {
                "max_new_tokens": 3,
                "do_sample": True,
                "temperature": 0.5,
                "top_k": 0,
                "top_p": 1e-1,
                "repetition_penalty": 1.25,
                "stop": ["a", "[b]"],
                "seed": 2**62,
                "return_full_text": False,
            },
        },
        {"messages": [{"role": "user", "content": "Hello"}], "parameters": {"stop": "5"}, "stream": False},
        {"prompt": "a", "parameters": {"stop": "[", "temperature": 2}},
    ],
}
EVERY_EXPLAINED_FIELD = {
    "seq_classification": {"text": "5", "text_pair": "a", "target": "positive", "steps": 7},
    "token_classification": {"text": "a", "at": 0, "target": [1, 2], "steps": 7},
    "question_answering": {"question": "a", "context": "b 4", "target": "4", "steps": 7},
    "text_generation": {"prompt": "a", "target": "b", "steps": 7},
}


def form(body: dict[str, Any], kind: Any) -> dict[str, Any]:
    """The fields of a form, as `curl -F name=value` sends them."""
    return {name: kind(value if isinstance(value, str) else json.dumps(value)) for name, value in body.items()}


@pytest.mark.parametrize("kind", [str, lambda text: bytearray(text, "utf-8")], ids=["text", "bytes"])
@pytest.mark.parametrize("task", TASKS)
def test_a_forms_fields_have_the_types_that_they_have_in_json(task: str, kind: Any) -> None:
    for body in EVERY_FIELD[task]:
        assert body.keys() >= {name for name in INPUTS[task]["required"] if name != "target"}
        assert parse(form(body, kind), task).inputs == [body]
        if "parameters" in body:
            one_by_one = {f"parameters.{name}": value for name, value in body["parameters"].items()}
            others = {name: value for name, value in body.items() if name != "parameters"}
            assert parse(form({**one_by_one, **others}, kind), task).inputs == [body]
    explained = EVERY_EXPLAINED_FIELD[task]
    assert parse(form(explained, kind), task, explain=True).inputs == [explained]


def test_true_may_be_written_as_python_has_it_and_a_number_with_blanks() -> None:
    body = {"question": "a", "context": "b", "handle_impossible_answer": "True", "top_k": " 2 "}
    assert parse(body, "question_answering").inputs[0]["handle_impossible_answer"] is True
    assert parse(body, "question_answering").inputs[0]["top_k"] == 2
    body = {"prompt": "a", "parameters": '{"top_k": 1, "seed": 3}', "parameters.top_k": "2"}
    assert parse(body, "text_generation").inputs[0]["parameters"] == {"top_k": 2, "seed": 3}


@pytest.mark.parametrize(
    ("task", "fields", "field", "said"),
    [
        (SEQ, {"text": "a", "top_k": ""}, "top_k", "a whole number"),
        (SEQ, {"text": "a", "top_k": "two"}, "top_k", "a whole number"),
        (SEQ, {"text": "a", "top_k": "1.5"}, "top_k", "a whole number"),
        (SEQ, {"text": "a", "top_k": "0"}, "top_k", "1 or more"),
        (SEQ, {"text": "a", "top_k": "-1"}, "top_k", "1 or more"),
        (SEQ, {"text": "a", "top_k": "010"}, "top_k", "a whole number"),
        (SEQ, {"text": "a", "top_k": "9" * 100_000}, "top_k", "a whole number"),
        (SEQ, {"text": "a", "top_k": "NaN"}, "top_k", "a whole number"),
        (SEQ, {"text": "a", "top_k": "true"}, "top_k", "a whole number"),
        (SEQ, {"text": "a", "top_k": "[2]"}, "top_k", "a whole number"),
        (SEQ, {"text": "a", "text.top_k": "2"}, "text.top_k", "unknown field"),
        ("question_answering", {"question": "a", "context": "b", "handle_impossible_answer": "1"}, None, "or false"),
        ("token_classification", {"text": "a", "aggregation_strategy": "1"}, "aggregation_strategy", "one of none"),
        ("text_generation", {"prompt": "a", "parameters.top_p": "1e999"}, "parameters.top_p", "a number"),
        ("text_generation", {"prompt": "a", "parameters.x": "1"}, "parameters.x", "unknown field"),
        ("text_generation", {"prompt": "a", "parameters": "5", "parameters.seed": "1"}, "parameters", "an object"),
        ("text_generation", {"prompt": "a", "parameters": "{"}, "parameters", "the field is not JSON"),
        ("text_generation", {"messages": "[" * 100_000}, "messages", "the field is not JSON"),
        ("text_generation", {"messages": "Hello"}, "messages", "a list"),
        ("text_generation", {"prompt": "a", "stream": "yes"}, "stream", "true or false"),
    ],
)  # fmt: skip
def test_a_forms_field_at_fault_is_named(task: str, fields: dict[str, str], field: str | None, said: str) -> None:
    with pytest.raises(Problem, match=said) as raised:
        parse(form(fields, str.encode), task)
    assert raised.value.field == (field or list(fields)[-1])


EXAMPLE = [
    (SEQ, '{"text":"Bloomberg has decided to publish a new report.", "target":1} \n', 1),
    ("token_classification", '{"text":"Bloomberg has decided to publish a new report.", "target":(1,2)} \n', [1, 2]),
    ("question_answering", '{"question" :"How is the weather", "context": "it is beautiful day", "target":0}', 0),
    ("text_generation", '{"text":"Bloomberg has decided to publish a new report.", "target":1} ', 1),
]
"""Requests as the files in pytorch/serve's examples/Huggingface_Transformers hold them, sent with `curl -T`; each with
its target."""


@pytest.mark.parametrize(("task", "text", "target"), EXAMPLE)
def test_the_examples_requests_are_taken_and_their_target_is_for_explanations_alone(
    task: str, text: str, target: Any
) -> None:
    (answered,) = parse({"body": bytearray(text, "utf-8")}, task).inputs
    assert answered.keys() == set(TASKS[task].fields)
    (explained,) = parse({"body": bytearray(text, "utf-8")}, task, explain=True).inputs
    assert explained == {**answered, "target": target}


@pytest.mark.parametrize("target", [1, 2.5, None, "x", "x" * 300_000, [1, [2]], {"a": 1}, True])
@pytest.mark.parametrize("task", TASKS)
def test_a_predictions_target_is_ignored_in_every_form(task: str, target: Any) -> None:
    body = {**GOOD[task], "target": target}
    wanted = [GOOD[task]]
    for row in (body, [body], {"instances": [body]}, {"instances": [body], "target": target}):
        assert parse({"body": row}, task).inputs == wanted
        jsonschema.validate(row, schema(task)["request"])
    assert parse(form(body, str.encode), task).inputs == wanted
    for name in ("body", "data"):
        assert parse({name: GOOD[task], "target": target}, task).inputs == wanted
    if isinstance(target, str):
        texts = {name: GOOD[task][name] for name in TASKS[task].fields}
        tensors = [tensor(name, [text]) for name, text in {**texts, "target": target}.items()]
        assert parse({"body": {"inputs": tensors}}, task).inputs == [texts]


def test_a_target_of_all_instances_is_no_explanations() -> None:
    with pytest.raises(Problem, match="beside instances") as raised:
        parse({"body": {"instances": ["a"], "target": "b"}}, SEQ, explain=True)
    assert raised.value.field == "target"


def test_a_target_beside_a_body_is_the_one_input_s_to_explain() -> None:
    for body in (b"fine", "fine", {"text": "fine"}):
        assert parse({"data": body, "target": b"1"}, SEQ, explain=True).inputs == [{"text": "fine", "target": "1"}]
    for body in (["fine"], {"instances": ["fine"]}, {"text": "fine", "target": "a"}):
        with pytest.raises(Problem, match="beside one input") as raised:
            parse({"data": body, "target": b"1"}, SEQ, explain=True)
        assert raised.value.field == "target"


@pytest.mark.parametrize("target", [True, -1, 1.5, None, "", [1], [1, 2, 3], [1, -2], [1, True], {}])
@pytest.mark.parametrize("task", TASKS)
def test_an_explanations_target_that_is_none_is_named(task: str, target: Any) -> None:
    body = {**{name: GOOD[task][name] for name in TASKS[task].fields}, "target": target}
    with pytest.raises(Problem) as raised:
        parse({"body": body}, task, explain=True)
    assert raised.value.field.startswith("target")
    assert not jsonschema.Draft202012Validator(schema(task)["explain"]).is_valid(body)


BAD: list[tuple[str, Any, str]] = [
    ("empty", b"", ""),
    ("blank", b" \n", ""),
    ("nothing", {}, "text"),
    ("not JSON", b'{"text": ', ""),
    ("not UTF-8", b"\xff\xfe\x00", ""),
    ("null", b"null-", ""),
    ("a number", 5, ""),
    ("true", True, ""),
    ("missing", {"text_pair": "b"}, "text"),
    ("wrong type", {"text": 5}, "text"),
    ("null text", {"text": None}, "text"),
    ("empty text", {"text": "  "}, "text"),
    ("unknown field", {"text": "a", "txet": "b"}, "txet"),
    ("too long", {"text": "a" * 200_001}, "text"),
    ("half a character", {"text": "a\ud800"}, "text"),
    ("boolean for a number", {"text": "a", "top_k": True}, "top_k"),
    ("zero", {"text": "a", "top_k": 0}, "top_k"),
    ("a half", {"text": "a", "top_k": 1.5}, "top_k"),
    ("not a number", {"text": "a", "top_k": float("nan")}, "top_k"),
    ("an empty list", [], ""),
    ("a list in a list", [["a"]], "[0]"),
    ("one bad of two", ["a", {"text": ""}], "[1].text"),
    ("too many", ["a"] * (MAX_INPUTS + 1), ""),
    ("instances of none", {"instances": "a"}, "instances"),
    ("beside instances", {"instances": ["a"], "x": 1}, "x"),
    ("nested deeply", ("[" * 100_000).encode(), ""),
]


@pytest.mark.parametrize(
    ("body", "field"), [row[1:] for row in BAD if row[0] != "null"], ids=[r[0] for r in BAD if r[0] != "null"]
)
def test_a_bad_request_says_which_field_is_at_fault(body: Any, field: str) -> None:
    with pytest.raises(Problem) as caught:
        parse({"body": body}, SEQ)
    assert caught.value.field == field
    assert caught.value.message
    assert 400 <= caught.value.status < 500


def test_parameters_of_generation_are_checked_one_by_one() -> None:
    bad = {"temperature": 0, "top_p": 1.5, "max_new_tokens": -1, "do_sample": 1, "stop": [5], "seed": -1, "nonsense": 1}
    for name, value in bad.items():
        with pytest.raises(Problem) as caught:
            parse({"body": {"prompt": "a", "parameters": {name: value}}}, "text_generation")
        assert caught.value.field.startswith(f"parameters.{name}")


def test_a_prompt_or_messages_but_not_both() -> None:
    messages = [{"role": "user", "content": "Hello"}]
    assert parse({"body": {"messages": messages}}, "text_generation").inputs == [{"messages": messages}]
    for body in ({}, {"prompt": "a", "messages": messages}, {"messages": []}, {"messages": [{"role": "user"}]}):
        with pytest.raises(Problem, match=r"either prompt or messages|empty|missing"):
            parse({"body": body}, "text_generation")


@pytest.mark.parametrize("task", TASKS)
def test_the_packed_schema_and_the_check_agree_on_thousands_of_values(task: str) -> None:
    validator = jsonschema.Draft202012Validator(schema(task)["request"])
    random_ = random.Random(3)
    values = [None, True, 0, 1, 2.0, 2.5, -1, "", " ", "text", "max", [], {}, ["a"], {"text": "a"}, 10**30]
    names = [*INPUTS[task]["properties"], "parameters", "unknown", "instances"]
    agreed = {True: 0, False: 0}
    for _ in range(1500):
        value: Any = json.loads(json.dumps(GOOD[task]))
        for _ in range(random_.randint(0, 2)):
            target = value
            if isinstance(value.get("parameters"), dict) and random_.random() < 0.5:
                target = value["parameters"]
            name = random_.choice(names if target is value else [*target, "seed", "top_p", "top_k", "stop"])
            if random_.random() < 0.3:
                target.pop(name, None)
            else:
                target[name] = random_.choice(values)
        if random_.random() < 0.2:
            value = [value, random_.choice(values)]
        try:
            parse({"body": value}, task)
            ours = True
        except Problem:
            ours = False
        assert ours == validator.is_valid(value), value
        agreed[ours] += 1
    assert min(agreed.values()) > 100


@pytest.mark.parametrize("task", TASKS)
def test_the_samples_are_valid_requests(task: str) -> None:
    for sample in TASKS[task].samples:
        jsonschema.validate(sample, schema(task)["request"])
        parse({"body": sample}, task)

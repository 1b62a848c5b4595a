"""Chat messages: written out as transformers' own tokenizers write them."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from handlers.protocol.problem import Problem
from handlers.text.chat import Chat
from handlers.text.tokenization import Tokenizer
from mar_pipeline.workers.packed_tokenizer import pack
from tests.support import tiny

pytestmark = pytest.mark.slow

TEMPLATES = {
    "marks": (
        "{%- for message in messages %}\n"
        "    {%- if message.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}\n"
        "{{ '<|' + message['role'] + '|>' + message['content'] | trim + eos_token + '\n' }}{%- endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
    ),
    "json": (
        "{{ bos_token }}{% for m in messages %}{% if loop.index > 3 %}{% break %}{% endif %}"
        "{{ m | tojson }}\n{% endfor %}"
    ),
    "generation": (
        "{%- for m in messages %}\n{%- set word = m.role %}\n    {%- generation %}\n{% set word = m.content %}"
        "{{ word | trim }}{{ eos_token }}\n    {%- endgeneration %}\n{{ word }}\n{%- endfor %}"
    ),
}
WORDS = ("tools", "documents", "add_generation_prompt", "add_bos_token", "bos_token", "image_token", "tool_token")
TEMPLATES |= {
    "tools": "{% if tools is not none %}tools{% endif %}{% if documents is none %}no documents{% endif %}",
    "words": "".join(f"{{{{ {word} is defined }}}} {{{{ {word} }}}}, " for word in WORDS),
}
TALKS: list[list[dict[str, Any]]] = [
    [{"role": "user", "content": " Hello <b>there</b> & 'you' 😀\n"}],
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Grüße"},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "Why?"},
    ],
]


def checkpoint(folder: Path, template: str | None) -> Path:
    tiny.save(folder, "gpt2", "text_generation")
    if template:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder


def chat(folder: Path) -> Chat:
    """The chats of an archive of the checkpoint."""
    pack({"checkpoint": str(folder), "out": str(folder)}, lambda *_: None)
    settings = Tokenizer(folder).settings
    return Chat(settings["chat_template"], settings["special_tokens"])


@pytest.mark.parametrize("name", TEMPLATES)
def test_messages_are_written_as_transformers_writes_them(name: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = checkpoint(tmp_path / "one", TEMPLATES[name])
    theirs = AutoTokenizer.from_pretrained(folder)
    for talk in TALKS:
        written = theirs.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
        assert chat(folder).prompt(talk) == written


def test_a_template_in_the_settings_counts_where_there_is_no_file_of_it(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "one", None)
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    for given in ("{{ messages[0].content }}!", [{"name": "default", "template": "{{ messages[0].content }}!"}]):
        file.write_text(json.dumps({**settings, "chat_template": given}))
        assert chat(folder).prompt([{"role": "user", "content": "So"}]) == "So!"


def test_special_tokens_of_the_models_own_are_words_and_switches_are_none(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = checkpoint(tmp_path / "one", TEMPLATES["words"])
    file = folder / "tokenizer_config.json"
    more = {"add_bos_token": True, "image_token": "<image>", "extra_special_tokens": {"tool_token": "<tool>"}}
    file.write_text(json.dumps({**json.loads(file.read_text()), **more}))
    written = AutoTokenizer.from_pretrained(folder).apply_chat_template(
        TALKS[0], tokenize=False, add_generation_prompt=True
    )
    assert "True <image>, True <tool>" in written
    assert chat(folder).prompt(TALKS[0]) == written


def test_what_a_template_refuses_is_the_requests_fault(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "one", TEMPLATES["marks"])
    with pytest.raises(Problem, match="no tools"):
        chat(folder).prompt([{"role": "tool", "content": "x"}])


def test_a_template_reaches_nothing_of_python(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "one", "{{ messages.__class__.__mro__[1].__subclasses__() }}")
    with pytest.raises(Problem, match="rejects"):
        chat(folder).prompt(TALKS[0])


def test_a_model_without_a_template_asks_for_a_prompt(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "one", None)
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    for named in ({}, {"chat_template": [{"name": "rag", "template": "x"}]}):
        file.write_text(json.dumps({**settings, **named}))
        with pytest.raises(Problem, match="no chat template"):
            chat(folder).prompt(TALKS[0])


@pytest.mark.parametrize("content", ["It began", " One, two, ", "\nHello\n"])
@pytest.mark.parametrize("template", [TEMPLATES["marks"], TEMPLATES["generation"], "{{ messages[-1].content }}</s>"])
def test_a_last_message_of_the_assistant_is_continued_as_in_transformers_pipeline(
    template: str, content: str, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    folder = checkpoint(tmp_path / "one", template)
    talk = [{"role": "user", "content": "Write:"}, {"role": "assistant", "content": content}]
    theirs = AutoTokenizer.from_pretrained(folder)
    written = theirs.apply_chat_template(talk, tokenize=False, continue_final_message=True)
    assert chat(folder).prompt(talk) == written


def test_a_last_message_that_a_template_leaves_out_cannot_be_continued(tmp_path: Path) -> None:
    told = chat(checkpoint(tmp_path / "one", "{{ messages[0].content }}"))
    talk = [{"role": "user", "content": "Write:"}, {"role": "assistant", "content": "It began"}]
    with pytest.raises(Problem, match="leaves out the assistant's message") as problem:
        told.prompt(talk)
    assert (problem.value.status, problem.value.field) == (400, "messages")


def test_what_goes_wrong_in_a_template_is_the_requests_fault(tmp_path: Path) -> None:
    for number, template in enumerate(("{{ messages[0].content + 1 }}", "{{ 1 / (messages | length - 1) }}")):
        told = chat(checkpoint(tmp_path / str(number), template))
        with pytest.raises(Problem, match="rejects") as problem:
            told.prompt(TALKS[0])
        assert (problem.value.status, problem.value.field) == (400, "messages")


@pytest.mark.parametrize("template", ["{% nonsense %}", "{{ messages"])
def test_a_template_that_cannot_be_read_fails_requests_of_messages_alone(
    template: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = checkpoint(tmp_path / "one", None)
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "chat_template": template}))
    with caplog.at_level(logging.WARNING, "handlers.text.chat"):
        told = chat(folder)
        for talk in TALKS:
            with pytest.raises(Problem, match="cannot be read") as problem:
                told.prompt(talk)
            assert (problem.value.status, problem.value.field) == (400, "messages")
    assert [record.name for record in caplog.records] == ["handlers.text.chat"]


def test_special_tokens_that_only_the_map_names_are_words_of_the_template(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "one", "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}")
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    special = {name: settings.pop(name) for name in ("bos_token", "eos_token")}
    file.write_text(json.dumps(settings))
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    assert chat(folder).prompt([{"role": "user", "content": "So"}]) == "<|endoftext|>So<|endoftext|>"

"""Chat messages: written out as transformers' own tokenizers write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from handlers.chat import Chat
from handlers.problem import Problem
from handlers.tokenization import Tokenizer
from tests import tiny

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
    return Chat(folder, Tokenizer(folder).settings)


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


def test_what_a_template_refuses_is_the_requests_fault(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "one", TEMPLATES["marks"])
    with pytest.raises(Problem, match="no tools"):
        chat(folder).prompt([{"role": "tool", "content": "x"}])


def test_a_template_reaches_nothing_of_python(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "one", "{{ messages.__class__.__mro__[1].__subclasses__() }}")
    with pytest.raises(Problem, match="refuses"):
        chat(folder).prompt(TALKS[0])


def test_a_model_without_a_template_asks_for_a_prompt(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="no chat template"):
        chat(checkpoint(tmp_path / "one", None)).prompt(TALKS[0])

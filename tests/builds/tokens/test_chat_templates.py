"""An archive's chat template writes what transformers has it write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mar_pipeline.answers import corpus
from mar_pipeline.errors import MismatchError
from tests.support import tiny
from tests.support.tokens import counts, edit


@pytest.mark.slow
@pytest.mark.parametrize(
    "template",
    [
        "{% if tools is not none %}tools{% endif %}{{ messages[0].content }}",
        "{% if documents is none %}none{% endif %}{{ messages[-1].content }}{% if add_generation_prompt %}A{% endif %}",
        "{{ strftime_now('%H:%M:%S.%f') }}{% for m in messages %}{{ m.role }}: {{ m.content | trim }}{% endfor %}",
        "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}{{ eos_token }}{{ messages }}",
        "{{ additional_special_tokens }}{{ image_token }}{{ messages[-1].content }}",
    ],
)
def test_chat_templates_write_what_transformers_has_them_write(template: str, tmp_path: Path) -> None:
    folder = tiny.save(tmp_path / "gpt2", "gpt2", "text_generation")
    (folder / "chat_template.jinja").write_text(template)
    more = {"additional_special_tokens": ["room"], "image_token": "<image>"}
    edit(folder / "tokenizer_config.json", **more, extra_special_tokens={"image_token": "<image>"})
    assert counts(folder)["talks"] >= 9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("template", "same"),
    [
        ({"default": "{{ messages[-1].content }}.", "tool_use": "no"}, len(corpus.TALKS)),
        ("", 0),
        ([{"name": "rag", "template": "x"}], 0),
    ],
)
def test_templates_by_name_and_empty_ones_are_what_transformers_makes_of_them(
    template: Any, same: int, tmp_path: Path
) -> None:
    folder = tiny.save(tmp_path / "gpt2", "gpt2", "text_generation")
    edit(folder / "tokenizer_config.json", chat_template=template)
    assert counts(folder)["talks"] == same


@pytest.mark.slow
def test_a_template_that_asks_for_more_than_a_handler_gives_is_noticed(tmp_path: Path) -> None:
    folder = tiny.save(tmp_path / "gpt2", "gpt2", "text_generation")
    # transformers keeps templates from this attribute; jinja2 does not.
    (folder / "chat_template.jinja").write_text("{{ dict is mapping }}{{ messages[0].content }}{{ dict }}")
    with pytest.raises(MismatchError, match="talks differ"):
        counts(folder)

"""Chat messages to a prompt, by the tokenizer's own template and without transformers."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from handlers.problem import Problem


class Chat:
    """The chat template of an unpacked archive: chat_template.jinja, or what tokenizer_config.json says."""

    def __init__(self, model_dir: Path, settings: dict[str, Any]) -> None:
        file = model_dir / "chat_template.jinja"
        source = file.read_text(encoding="utf-8") if file.exists() else settings.get("chat_template")
        if isinstance(source, list):  # several by name
            source = {each["name"]: each["template"] for each in source}.get("default")
        self.words = {
            name: word.get("content") if isinstance(word, dict) else word
            for name, word in settings.items()
            if name.endswith("_token") and word
        }
        self._template = _compiled(source) if source else None

    def prompt(self, messages: list[dict[str, Any]]) -> str:
        """What the model is to go on with: the messages, and the mark of an answer's begin.

        Raises Problem if there is no template, or if it does not take these messages.
        """
        if self._template is None:
            raise Problem("this model's tokenizer has no chat template: give a prompt", "messages")
        from jinja2 import TemplateError

        try:
            return str(self._template.render(messages=messages, add_generation_prompt=True, **self.words))
        except TemplateError as error:
            raise Problem(f"the chat template refuses these messages: {error}"[:300], "messages") from None


def _compiled(source: str) -> Any:
    """A template in a sandbox, with the words that transformers gives to templates (utils/chat_template_utils.py)."""
    from jinja2 import TemplateError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def as_json(value: Any, ensure_ascii: bool = False, indent: Any = None, **others: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **others)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = as_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment.from_string(source)

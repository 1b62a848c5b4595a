"""Chat messages to a prompt, by the tokenizer's own template and without transformers."""

from __future__ import annotations

import json
import logging
from datetime import datetime
from pathlib import Path
from typing import Any

from ..protocol.problem import Problem

logger = logging.getLogger(__name__)


class Chat:
    """The chat template of an unpacked archive: chat_template.jinja, or what tokenizer_config.json says."""

    def __init__(self, model_dir: Path, settings: dict[str, Any]) -> None:
        named = {name: word for name, word in settings.items() if name.endswith("_token")}
        for group in ("extra_special_tokens", "model_specific_special_tokens"):
            # A model's own, by name. Where they are a list, they have none.
            named.update(settings[group] if isinstance(settings.get(group), dict) else {})
        words = {name: word.get("content") if isinstance(word, dict) else word for name, word in named.items()}
        # Some settings are called as tokens are: add_bos_token is a switch, and no word of a template.
        self.words = {name: word for name, word in words.items() if isinstance(word, str) and word}
        self._template: Any = None
        self._missing = "this model's tokenizer has no chat template: give a prompt"
        try:
            source = _source(model_dir, settings)
            self._template = _compiled(source) if source else None
        except Exception as error:
            # The model answers prompts none the less. What the error quotes is the archive's, and nobody's message.
            logger.warning(
                "the chat template cannot be read: %s: %s", type(error).__name__, " ".join(str(error).split())[:300]
            )
            self._missing = "this model's chat template cannot be read, the server's log says why: give a prompt"

    def prompt(self, messages: list[dict[str, Any]]) -> str:
        """What the model is to go on with: the messages, and the mark of an answer's begin.

        Raises Problem if there is no template, or if it does not take these messages.
        """
        if self._template is None:
            raise Problem(self._missing, "messages")
        try:
            # All that transformers' render_jinja_template gives: what is None is defined, and not the same as left out.
            given = {"messages": messages, "tools": None, "documents": None, "add_generation_prompt": True}
            return str(self._template.render({**self.words, **given}))
        except Exception as error:
            # Its own refusal, or what goes wrong in it on messages that it was not written for.
            raise Problem(f"the chat template refuses these messages: {error}"[:300], "messages") from None


def _source(model_dir: Path, settings: dict[str, Any]) -> Any:
    file = model_dir / "chat_template.jinja"
    source = file.read_text(encoding="utf-8") if file.exists() else settings.get("chat_template")
    if isinstance(source, list):  # several by name
        source = {each["name"]: each["template"] for each in source}.get("default")
    return source["default"] if isinstance(source, dict) and "default" in source else source


def _compiled(source: str) -> Any:
    """A template in a sandbox, with the words that transformers gives to templates (utils/chat_template_utils.py)."""
    from importlib.metadata import version

    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    release = version("jinja2")
    if [int(part) for part in release.split(".")[:3] if part.isdigit()] < [3, 1, 6]:
        # CVE-2025-27516: there a template gets out of the sandbox, and reads the server's environment.
        raise ImportError(f"jinja2 {release} runs what a template says: 3.1.6 or newer is needed")

    class Generation(Extension):
        """{% generation %}...{% endgeneration %}, the marks of what an assistant said: for training only, so the
        contents are written as they stand. A scope of its own, as transformers has it."""

        tags = {"generation"}  # noqa: RUF012 (the base class has it so)

        def parse(self, parser: Any) -> nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("_contents"), [], [], body).set_lineno(line)

        def _contents(self, caller: Any) -> Any:
            return caller()

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def as_json(value: Any, ensure_ascii: bool = False, indent: Any = None, **others: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **others)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = as_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment.from_string(source)

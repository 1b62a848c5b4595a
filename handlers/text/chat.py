"""Renders chat messages to a prompt by the tokenizer's own template, without transformers."""

from __future__ import annotations

import json
import logging
from datetime import datetime
from pathlib import Path
from typing import Any

from ..protocol.problem import Problem

logger = logging.getLogger(__name__)


class Chat:
    """The chat template of an unpacked archive, from chat_template.jinja or tokenizer_config.json."""

    def __init__(self, model_dir: Path, settings: dict[str, Any]) -> None:
        named = {name: word for name, word in settings.items() if name.endswith("_token")}
        for group in ("extra_special_tokens", "model_specific_special_tokens"):
            # The model's own tokens by name; a list has no names.
            named.update(settings[group] if isinstance(settings.get(group), dict) else {})
        words = {name: word.get("content") if isinstance(word, dict) else word for name, word in named.items()}
        # add_bos_token and the like are switches, not tokens.
        self.words = {name: word for name, word in words.items() if isinstance(word, str) and word}
        self._template: Any = None
        self._missing = "this model's tokenizer has no chat template: send a prompt"
        try:
            source = _source(model_dir, settings)
            self._template = _compiled(source) if source else None
        except Exception as error:
            # Prompts still work. The error quotes the archive, not a request, so it may be logged.
            logger.warning(
                "the chat template cannot be read: %s: %s", type(error).__name__, " ".join(str(error).split())[:300]
            )
            self._missing = "this model's chat template cannot be read (see the server's log): send a prompt"

    def prompt(self, messages: list[dict[str, Any]]) -> str:
        """The prompt for a conversation: the messages, and the start of the answer.

        Raises Problem if there is no template, or if it rejects these messages.
        """
        if self._template is None:
            raise Problem(self._missing, "messages")
        try:
            # All variables of transformers' render_jinja_template: None is defined, which a template can test.
            variables = {"messages": messages, "tools": None, "documents": None, "add_generation_prompt": True}
            return str(self._template.render({**self.words, **variables}))
        except Exception as error:
            # The template's own error, or one in it for messages that it does not support.
            raise Problem(f"the chat template rejects these messages: {error}"[:300], "messages") from None


def _source(model_dir: Path, settings: dict[str, Any]) -> Any:
    file = model_dir / "chat_template.jinja"
    source = file.read_text(encoding="utf-8") if file.exists() else settings.get("chat_template")
    if isinstance(source, list):  # several by name
        source = {each["name"]: each["template"] for each in source}.get("default")
    return source["default"] if isinstance(source, dict) and "default" in source else source


def _compiled(source: str) -> Any:
    """A template in a sandbox, with the filters and functions of transformers (utils/chat_template_utils.py)."""
    from importlib.metadata import version

    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    release = version("jinja2")
    if [int(part) for part in release.split(".")[:3] if part.isdigit()] < [3, 1, 6]:
        # CVE-2025-27516: a template can leave the sandbox and read the server's environment.
        raise ImportError(f"jinja2 {release} does not sandbox templates safely: 3.1.6 or newer is needed")

    class Generation(Extension):
        """{% generation %}...{% endgeneration %}, which marks the assistant's turns for training: the contents are
        rendered unchanged, in their own scope, as in transformers."""

        tags = {"generation"}  # noqa: RUF012 (as in the base class)

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

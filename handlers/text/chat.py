"""Renders chat messages to a prompt by the tokenizer's own template, without transformers."""

from __future__ import annotations

import json
import logging
from datetime import datetime
from typing import Any

from ..protocol.problem import Problem
from ..protocol.schema import MAX_CHARACTERS_TOGETHER
from .bounds import Excess, bounded, refuse_large

logger = logging.getLogger(__name__)

LONGEST = 2 * MAX_CHARACTERS_TOGETHER
"""The most characters of a rendered conversation."""


class Chat:
    """A chat template (`source`), or none. `words` are the special tokens that it can name."""

    def __init__(self, source: str | None, words: dict[str, Any]) -> None:
        self.words = words
        self._template: Any = None
        self._missing = "this model's tokenizer has no chat template: send a prompt"
        try:
            with bounded():
                self._template = _compiled(source) if source else None
        except Exception as error:
            # Prompts still work. The error quotes the archive, not a request, so it may be logged.
            logger.warning(
                "the chat template cannot be read: %s: %s", type(error).__name__, " ".join(str(error).split())[:300]
            )
            self._missing = "this model's chat template cannot be read (see the server's log): send a prompt"

    def prompt(self, messages: list[dict[str, Any]]) -> str:
        """The prompt for a conversation: the messages, and the start of the answer. A last message of the assistant is
        the start of its answer, as in transformers' pipeline.

        Raises Problem if there is no template, or if it rejects these messages.
        """
        if self._template is None:
            raise Problem(self._missing, "messages")
        continued = messages[-1]["role"] == "assistant"
        last = messages[-1]["content"]
        if continued:
            messages = [*messages[:-1], {**messages[-1], "content": last + _TAG}]
        # All variables of transformers' render_jinja_template: None is defined, which a template can test.
        variables = {"messages": messages, "tools": None, "documents": None, "add_generation_prompt": not continued}
        try:
            with bounded():
                written = str(self._template.render({**self.words, **variables}))
            if len(written) > LONGEST:
                raise Excess(f"it writes {len(written)} characters, and {LONGEST} are the most")
            return _until_tag(written, last) if continued else written
        except MemoryError:
            raise Problem("the chat template takes too much memory for these messages", "messages") from None
        except Exception as error:
            # The template's own error, or one in it for messages that it does not support.
            raise Problem(f"the chat template rejects these messages: {error}"[:300], "messages") from None


_TAG = "CONTINUE_FINAL_MESSAGE_TAG "
"""transformers' mark of the place from which a last message is continued. Its space shows whether a template trims."""


def _until_tag(written: str, last: str) -> str:
    """A rendered conversation up to the end of its last message, as in transformers' render_jinja_template."""
    place = written.rfind(_TAG.strip())
    if place < 0 or last.strip() not in written:
        raise ValueError("it leaves out the assistant's message, which is to be continued")
    return written[:place] if written.startswith(_TAG, place) else written[:place].rstrip()


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

    class Sandbox(ImmutableSandboxedEnvironment):
        """Computes no large numbers, neither when it compiles a template nor when it renders it."""

        intercepted_binops = frozenset(("*", "**", "%"))

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            if operator != "%":
                refuse_large(operator, left, right)
            return super().call_binop(context, operator, left, right)

    environment = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    environment.filters["tojson"] = as_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment.from_string(source)

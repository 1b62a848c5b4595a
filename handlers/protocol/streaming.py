"""Sends parts of an answer to the client while the rest is being generated."""

from __future__ import annotations

import json
from typing import Any

KIND = "application/x-ndjson"


class Stream:
    """The stream of one request's text: a JSON line for each part, {"text": ...}. The last line is the whole answer.

    TorchServe marks an intermediate response by a header (ts/handler_utils/utils.py), and accepts parts for single
    requests of a batch, so other requests of the batch are not affected.
    """

    def __init__(self, context: Any, index: int) -> None:
        self.context, self.index, self.sent = context, index, False
        # Without a server, only the whole answer is returned.
        self._live = getattr(context, "cl_socket", None) is not None
        if self._live:
            context.set_response_content_type(index, KIND)

    def send(self, text: str) -> None:
        """Send a part of the text."""
        if not self._live:
            return
        from ts.handler_utils.utils import send_intermediate_predict_response

        self.sent = True
        line = {self.index: _line({"text": text})}
        mine = {self.index: self.context.request_ids[self.index]}
        send_intermediate_predict_response(line, mine, "Intermediate response", 200, self.context)

    def last(self, answer: Any) -> Any:
        """The answer as the last line of the response; unchanged if nothing is streamed."""
        return _line(answer) if self._live else answer


def _line(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=False) + "\n").encode("utf-8")

"""Parts of an answer, sent to its client while the rest is still being made."""

from __future__ import annotations

import json
from typing import Any

KIND = "application/x-ndjson"


class Stream:
    """Where the parts of one request's text go: a line of JSON each, {"text": ...}. The last line is the whole answer.

    TorchServe marks a response as unfinished by a header (ts/handler_utils/utils.py), and takes parts of some of a
    batch's requests only, so a neighbour that does not stream is not touched.
    """

    def __init__(self, context: Any, index: int) -> None:
        self.context, self.index, self.sent = context, index, False
        # Without a server there is nobody to send to, and the whole answer has to do.
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
        """The answer as the response's last line; as it is where nothing is streamed."""
        return _line(answer) if self._live else answer


def _line(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=False) + "\n").encode("utf-8")

"""Errors in requests."""

from __future__ import annotations

from typing import Any


class Problem(Exception):
    """Why a request cannot be answered: the message, the path of the field that caused it, and the HTTP status."""

    def __init__(self, message: str, field: str = "", status: int = 400) -> None:
        super().__init__(message)
        self.message, self.field, self.status = message, field, status

    def at(self, place: str) -> Problem:
        """The same problem for the input at `place` in its request, such as [1]."""
        if not place:
            return self
        return Problem(self.message, f"{place}.{self.field}" if self.field else place, self.status)

    def answer(self) -> dict[str, Any]:
        """The body of the response."""
        return {"error": {"message": self.message, **({"field": self.field} if self.field else {})}}

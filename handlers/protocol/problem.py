"""A request's own fault."""

from __future__ import annotations

from typing import Any


class Problem(Exception):
    """Why one request cannot be answered, and which of its fields is at fault; `status` is the HTTP code."""

    def __init__(self, message: str, field: str = "", status: int = 400) -> None:
        super().__init__(message)
        self.message, self.field, self.status = message, field, status

    def at(self, place: str) -> Problem:
        """The same of an input at a place in its request, such as [1]."""
        if not place:
            return self
        return Problem(self.message, f"{place}.{self.field}" if self.field else place, self.status)

    def answer(self) -> dict[str, Any]:
        """The body that the request gets."""
        return {"error": {"message": self.message, **({"field": self.field} if self.field else {})}}

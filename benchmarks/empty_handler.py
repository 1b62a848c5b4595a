"""TorchServe's own round trip: a handler that answers at once."""


class EmptyHandler:
    """Anything -> {}."""

    def initialize(self, context):  # type: ignore[no-untyped-def]
        """Nothing to load."""

    def handle(self, data, context):  # type: ignore[no-untyped-def]
        """An answer of the same kind as a real one."""
        del context
        return [{"label": "negative", "score": 0.5} for _ in data]

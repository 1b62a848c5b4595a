"""Requests and responses: parsing, schema, tensors, streams. It never imports torch."""

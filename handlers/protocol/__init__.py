"""Requests and responses: parsing, schema, tensors, streams. Does not import torch."""

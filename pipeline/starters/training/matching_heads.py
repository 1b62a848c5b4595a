"""First weights that let a small RoBERTa match words from its first step on.

Attention that finds the same word elsewhere, or the word before or after, is slow to appear in training from noise. Here some
heads start as just that: positions are sines in the first coordinates, turned by one place for a neighbour, and words are
matched by one random projection that is used for the query and the key alike. All of it is trained further.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import RobertaForQuestionAnswering

_ROLES = (
    ("before", "after", "same", "same", ""),
    ("before", "after", "same", "same", ""),
    ("same", "same", "before", "after", ""),
    ("same", "", "", "", ""),
)


def seed_heads(model: RobertaForQuestionAnswering) -> None:
    """Sets the first weights in place; the width of a head is also the number of coordinates that hold the position."""
    config = model.config
    heads = int(config.num_attention_heads)
    wide, size = int(config.hidden_size), int(config.hidden_size) // heads
    frequencies = torch.linspace(0.02, 2.8, size // 2)
    with torch.no_grad():
        embeddings = model.roberta.embeddings
        words = embeddings.word_embeddings.weight
        words.normal_(0, 0.3)
        words[:, :size] = 0
        words[1] = 0
        embeddings.token_type_embeddings.weight.zero_()
        places = embeddings.position_embeddings.weight
        angles = torch.arange(places.shape[0])[:, None] * frequencies
        places.normal_(0, 0.02)
        places[:, :size] = 0.4 * torch.cat([angles.sin(), angles.cos()], 1)
        for layer, roles in zip(model.roberta.encoder.layer, _ROLES, strict=False):
            attention = layer.attention
            for linear in (attention.self.value, attention.output.dense, layer.intermediate.dense, layer.output.dense):
                nn.init.normal_(linear.weight, 0, 0.5 / linear.in_features**0.5)
            query, key = attention.self.query.weight, attention.self.key.weight
            nn.init.normal_(query, 0, 0.5 / wide**0.5)
            nn.init.normal_(key, 0, 0.5 / wide**0.5)
            for head, role in enumerate(roles[:heads]):
                rows = slice(head * size, (head + 1) * size)
                if role == "same":
                    query[rows, size:] = torch.randn(size, wide - size) / (wide - size) ** 0.5 * 1.3
                    query[rows, :size] = 0
                    key[rows] = query[rows]
                elif role:
                    query[rows], key[rows] = 0, 0
                    query[rows, :size] = 1.1 * _turn(frequencies, -1 if role == "before" else 1)
                    key[rows, :size] = 1.1 * torch.eye(size)


def _turn(frequencies: Tensor, places: int) -> Tensor:
    """The matrix [size, size] that takes a position's sines and cosines to those of the one `places` on."""
    cos, sin = torch.diag((frequencies * places).cos()), torch.diag((frequencies * places).sin())
    return torch.cat([torch.cat([cos, sin], 1), torch.cat([-sin, cos], 1)], 0)

"""(a): what one would write for TorchServe by hand, the way its Hugging Face example is made: every text is tokenized
by itself and padded to max_length, and the batch is one run of the model."""

from __future__ import annotations

import json
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer


class PaddingHandler:
    """{"text"} -> the label."""

    def initialize(self, context: Any) -> None:
        """Load what lies in the worker's model folder."""
        folder = context.system_properties["model_dir"]
        self.max_length = int(context.model_yaml_config["handler"]["max_length"])
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForSequenceClassification.from_pretrained(folder)
        self.model.eval()

    def preprocess(self, requests: list[dict[str, Any]]) -> tuple[torch.Tensor, torch.Tensor]:
        """The batch's token ids and masks, [requests, max_length] each."""
        ids, masks = [], []
        for request in requests:
            body: Any = request.get("data") or request.get("body")
            if isinstance(body, bytes | bytearray):
                body = json.loads(body)
            inputs = self.tokenizer(
                body["text"],
                padding="max_length",
                truncation=True,
                max_length=self.max_length,
                return_tensors="pt",
            )
            ids.append(inputs["input_ids"])
            masks.append(inputs["attention_mask"])
        return torch.cat(ids), torch.cat(masks)

    def inference(self, inputs: tuple[torch.Tensor, torch.Tensor]) -> list[str]:
        """The best label of each row."""
        ids, masks = inputs
        with torch.inference_mode():
            logits = self.model(input_ids=ids, attention_mask=masks).logits
        return [self.model.config.id2label[int(best)] for best in logits.argmax(dim=1)]

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[str]:
        """A label for each request."""
        del context
        return self.inference(self.preprocess(data))

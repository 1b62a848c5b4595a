"""Runs a checkpoint in Hugging Face's format with transformers."""

from __future__ import annotations

import atexit
import importlib.util
import inspect
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from ..inference.batches import NESTED, RUN_TOKENS, split
from ..inference.generation import Row, never
from . import Task, linear, shares_weights
from .nested import Nested, NoForm

logger = logging.getLogger(__name__)


def load(model_dir: Path, config: dict[str, Any], device: torch.device, pad: int, task: Task) -> Pretrained:
    """Load the model of an unpacked archive, for batches padded with `pad`. Raises what transformers raises."""
    settings = config["handler"]
    model = _model(model_dir, settings, device, task)
    # Decoder classifiers pool the last token that is not padding, so it must be the id that batches are padded with.
    model.config.pad_token_id = pad
    inputs = _inputs(model, model_dir, bool(settings.get("trust_remote_code")))
    compiled = (config.get("pt2") or {}).get("compile") or {}
    if compiled.get("enable"):
        chosen = {name: value for name, value in compiled.items() if name != "enable" and value is not None}
        model.forward = torch.compile(model.forward, **{"dynamic": True, **chosen})
        return Pretrained(model, inputs, task.outputs, compiled=True)
    nested, notes = None, []
    asked = settings.get("BetterTransformer")
    # On a GPU, attention text by text starts many small kernels, so there it is off by default.
    if not task.generates and (asked or (asked is None and model.device.type == "cpu")):
        try:
            nested = Nested(model, inputs)
        except NoForm as why:
            reason = f"{type(model).__name__} has no nested form ({why}); the normal path runs"
            if asked:
                notes.append(f"BetterTransformer has no effect: {reason}")
            logger.info(reason)
    rows = linear.STEPS if task.generates else linear.TEXTS
    way = linear.speed_up(model, rows, shared=shares_weights(config))
    logger.info("linear layers by %s", way)
    if nested:
        nested.rounds = way != "torch"
    return Pretrained(model, inputs, task.outputs, nested, notes)


def _own_folder_for_code() -> None:
    """Give transformers a folder of this worker's own, which it can write to, for a model's code. It copies the code
    there and imports it. It reads the variable on import."""
    if "HF_MODULES_CACHE" not in os.environ:
        folder = tempfile.mkdtemp(prefix="mar-code-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ["HF_MODULES_CACHE"] = folder


def _model(model_dir: Path, settings: dict[str, Any], device: torch.device, task: Task) -> Any:
    if settings.get("trust_remote_code"):
        _own_folder_for_code()
    import transformers

    # Without trust_remote_code, transformers asks at the terminal whether the model's own code may run.
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": bool(settings.get("trust_remote_code"))}
    # transformers 5 renamed torch_dtype.
    word = "dtype" if int(transformers.__version__.split(".")[0]) >= 5 else "torch_dtype"
    dtype = settings.get("dtype") or "float32"
    options[word] = dtype if dtype == "auto" else getattr(torch, dtype)
    if settings.get("attn_implementation"):
        options["attn_implementation"] = settings["attn_implementation"]
    spread = settings.get("model_parallel") and torch.cuda.device_count() > 1
    if spread:
        if importlib.util.find_spec("accelerate") is None:
            raise ImportError("handler.model_parallel: true needs accelerate on the server: pip install accelerate")
        options["device_map"] = "auto"
    model = getattr(transformers, task.auto_class).from_pretrained(model_dir, **options).eval()
    return model if spread else model.to(device)


def _inputs(model: Any, model_dir: Path, code: bool) -> list[str]:
    """The names of the model's inputs. token_type_ids is one only if the model has several types (RoBERTa's forward has
    the argument, and one type) and its tokenizer returns them."""
    inputs = ["input_ids", "attention_mask"]
    takes = "token_type_ids" in inspect.signature(type(model).forward).parameters
    if takes and (getattr(model.config, "type_vocab_size", 0) or 0) > 1:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(model_dir, local_files_only=True, trust_remote_code=code)
        if "token_type_ids" in tokenizer.model_input_names:
            inputs.append("token_type_ids")
    return inputs


class Pretrained:
    """A loaded model. `padding_is_free`: whether the layers skip padding, so that mixing lengths in a batch costs
    nothing."""

    unexplained = ""

    def __init__(
        self,
        model: Any,
        inputs: list[str],
        outputs: Sequence[str],
        nested: Nested | None = None,
        notes: Sequence[str] = (),
        *,
        compiled: bool = False,
    ) -> None:
        self.model, self.device, self.nested = model, model.device, nested
        self.inputs, self.outputs = inputs, outputs
        self.notes, self.compiled = list(notes), compiled
        self.padding_is_free = nested is not None

    @contextmanager
    def uncompiled(self) -> Iterator[None]:
        """Within the context, the model runs without torch.compile."""
        compiled = vars(self.model).pop("forward") if self.compiled else None
        try:
            yield
        finally:
            if compiled:
                self.model.forward = compiled

    def batches(self, lengths: Sequence[int], most: float = RUN_TOKENS) -> list[list[int]]:
        """Batches of inputs of these lengths, as lists of indices, of at most `most` tokens each."""
        return split(lengths, NESTED if self.padding_is_free else 1, most)

    @torch.inference_mode()
    def run(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Outputs by name, float32 on the CPU, for int64 inputs [rows, length]."""
        inputs = {name: batch[name].to(self.device) for name in self.inputs}
        with self.nested.without_padding(inputs["attention_mask"]) if self.nested else nullcontext():
            out = self.model(**inputs, return_dict=True)
        return {name: out[name].float().cpu() for name in self.outputs}

    @torch.inference_mode()
    def generate(
        self, rows: Sequence[Row], batch: dict[str, torch.Tensor], pad: int, over: Callable[[], bool] = never
    ) -> None:
        """Generate with transformers after each prompt, padded on the left in `batch`, until every row has finished or
        `over()` is true.

        Each row chooses its own token; the scores of all others are set to minus infinity, so transformers takes it.
        """
        from transformers import LogitsProcessorList, StoppingCriteriaList

        def choose(_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            only = torch.full_like(scores, -torch.inf)
            for index, row in enumerate(rows):
                token = pad
                if row.finish is None:
                    token = row.choose(scores[index])
                    row.accept(token)
                only[index, token] = 0.0
            return only

        def ended(ids: torch.Tensor, _scores: Any, **_: Any) -> torch.Tensor:
            late = over()
            return torch.tensor([late or row.finish is not None for row in rows], device=ids.device)

        self.model.generate(
            input_ids=batch["input_ids"].to(self.device),
            attention_mask=batch["attention_mask"].to(self.device),
            max_new_tokens=max(row.parameters.max_new_tokens for row in rows),
            do_sample=False,
            num_beams=1,
            num_return_sequences=1,
            return_dict_in_generate=False,
            repetition_penalty=1.0,
            # Several tokens at a time, which `choose` does not see one by one.
            prompt_lookup_num_tokens=None,
            pad_token_id=pad,
            logits_processor=LogitsProcessorList([choose]),
            stopping_criteria=StoppingCriteriaList([ended]),
        )

"""Runs a checkpoint in Hugging Face's format with transformers."""

from __future__ import annotations

import atexit
import importlib.util
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
from ..protocol import tokenizer_settings
from . import Task, linear, shares_weights
from .isolation import MARK, Outputs, State, Trial, accepts, depends, marks_padding, padded, switches, vocabulary
from .nested import Nested, NoForm

logger = logging.getLogger(__name__)


def load(model_dir: Path, config: dict[str, Any], device: torch.device, pad: int, task: Task) -> Pretrained:
    """Load the model of an unpacked archive, for batches padded with `pad`. Raises what transformers raises."""
    settings = config["handler"]
    model = _model(model_dir, settings, device, task)
    inputs = _inputs(model, tokenizer_settings.read(model_dir)["model_input_names"])
    if task.generates:
        # Ways to draft tokens, which do not change greedy texts; here, each row chooses its tokens.
        for draft in ("prompt_lookup_num_tokens", "assistant_early_exit"):
            setattr(model.generation_config, draft, None)
    marks = not (task.per_token or task.generates) and marks_padding(model)
    plain = Pretrained(model, inputs, task.outputs, marks=marks)
    before = State(model)
    longest = int(settings["max_length"])
    alone = switches(model.config, longest) or depends(model, plain.trial(task, pad), pad, longest)
    before.restore()
    if alone:
        logger.info("each text runs alone: the answers of %s depend on the other texts", type(model).__name__)
    compiled = (config.get("pt2") or {}).get("compile") or {}
    if compiled.get("enable"):
        chosen = {name: value for name, value in compiled.items() if name != "enable" and value is not None}
        model.forward = torch.compile(model.forward, **{"dynamic": True, **chosen})
        return Pretrained(model, inputs, task.outputs, compiled=True, marks=marks, alone=alone)
    nested, notes = None, []
    asked = settings.get("BetterTransformer")
    # On a GPU, attention text by text starts many small kernels, so there it is off by default.
    if not task.generates and (asked or (asked is None and model.device.type == "cpu")):
        try:
            if alone:
                raise NoForm("each text runs alone")
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
    return Pretrained(model, inputs, task.outputs, nested, notes, marks=marks, alone=alone)


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


def _inputs(model: Any, given: Sequence[str]) -> list[str]:
    """The names of the model's inputs: what its tokenizer gives, by its setting, and its forward accepts. RoBERTa's
    forward accepts token_type_ids, and has one type only."""
    inputs = ["input_ids", *(["attention_mask"] if accepts(model, "attention_mask") else [])]
    types = getattr(model.config, "type_vocab_size", None)
    typed = accepts(model, "token_type_ids", named=True) and types not in (0, 1)
    if typed and "token_type_ids" in given:
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
        marks: bool = False,
        alone: bool = False,
    ) -> None:
        self.model, self.device, self.nested = model, model.device, nested
        self.inputs, self.outputs = inputs, outputs
        self.vocabulary = vocabulary(model)
        self.notes, self.compiled = list(notes), compiled
        self.padding_is_free = nested is not None
        self.marks, self.alone = marks, alone
        self._loaded = State(model) if alone else None

    def fresh(self) -> None:
        """Forget earlier texts, if the model's answers depend on them."""
        if self._loaded:
            self._loaded.restore()

    def trial(self, task: Task, pad: int) -> Callable[[list[list[int]]], Outputs]:
        """A function that returns the model's outputs for a batch of texts."""

        def ask(texts: list[list[int]]) -> Outputs:
            batch = padded(texts, pad, left=task.generates)
            if task.generates:
                rows = [Trial() for _ in texts]
                self.generate(rows, batch, pad)
                return [row.logits for row in rows]
            outputs = list(self.run(batch).values())
            return [
                [out[row, : len(text)] if task.per_token else out[row] for out in outputs]
                for row, text in enumerate(texts)
            ]

        return ask

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
        if self.alone:
            return [[index] for index in range(len(lengths))]
        return split(lengths, NESTED if self.padding_is_free else 1, most)

    @torch.inference_mode()
    def run(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Outputs by name, float32 on the CPU, for int64 inputs [rows, length]."""
        self.fresh()
        inputs = {name: batch[name].to(self.device) for name in self.inputs}
        if self.marks:
            inputs["input_ids"] = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, MARK)
        with self.nested.without_padding(inputs["attention_mask"]) if self.nested else nullcontext():
            out = self.model(**inputs, return_dict=True)
        return {name: out[name].float().cpu() for name in self.outputs}

    @torch.inference_mode()
    def generate(
        self, rows: Sequence[Row | Trial], batch: dict[str, torch.Tensor], pad: int, over: Callable[[], bool] = never
    ) -> None:
        """Generate with transformers after each prompt, padded on the left in `batch`, until every row has finished or
        `over()` is true.

        Each row chooses its own token; the scores of all others are set to minus infinity, so transformers takes it.
        """
        from transformers import LogitsProcessorList, StoppingCriteriaList

        self.fresh()

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

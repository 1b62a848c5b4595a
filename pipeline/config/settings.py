"""The keys of a config file: types, ranges, defaults and units.

Each model is one section of the file; a field's name (or alias) is the key. The docstring below a field is its text in
docs/reference/settings.md and configs/schema.json: `docs.generate` reads it from the source, since pydantic's
`use_attribute_docstrings` would parse it at each start of `mar` (25 ms). Rules between keys are in `config.rules`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from ..archive.formats import FormatName
from ..host.chips import option
from .frontend import Frontend
from .values import (
    ArchiveName,
    ArchiveVersion,
    Hardware,
    Labels,
    Lengths,
    Natural,
    NotAChip,
    Number,
    Positive,
    Revision,
    Samples,
    Section,
    TaskName,
    Words,
)

DEFAULT_LENGTH_LIMIT = 512
"""The largest default max_length, in tokens: longer inputs cost much more (attention is quadratic)."""


class Generation(Section):
    """`handler.generation:`, defaults for requests; names and meanings are those of transformers."""

    max_new_tokens: Positive | None = None
    """Tokens to generate. If left out: as many as the checkpoint's settings say, or 64."""
    do_sample: bool | None = None
    """Sample, instead of taking the likeliest token."""
    temperature: Annotated[Number, Field(gt=0, le=100)] | None = None
    """transformers' `temperature`."""
    top_k: Natural | None = None
    """transformers' `top_k`."""
    top_p: Annotated[Number, Field(gt=0, le=1)] | None = None
    """transformers' `top_p`."""
    repetition_penalty: Annotated[Number, Field(gt=0, le=100)] | None = None
    """transformers' `repetition_penalty`."""


class HandlerSettings(Section):
    """`handler:`: first the keys of pytorch/serve's Hugging Face example, then further ones."""

    model_name: str | None = None
    """The model: `starter:NAME`, a folder, a Hub id, or an address (`s3://...`, `models:/...`)."""
    mode: TaskName | None = None
    """The task. If left out: the one that the model's own config.json names."""
    num_labels: Annotated[int, Field(ge=0, le=100_000)] | None = None
    """Labels of the model's head. If left out, or 0 as in the reference example: as many as the checkpoint has."""
    do_lower_case: bool | None = None
    """Whether the tokenizer lowers case. If left out: as the checkpoint's tokenizer does."""
    save_mode: Literal["pretrained", "torchscript"] = "pretrained"
    """`pretrained` is served by transformers; `torchscript` is a traced graph, served without it."""
    max_length: Lengths | None = None
    """The most tokens of an input, with special tokens; in text generation of prompt and new tokens together. If left
    out: the model's own limit, but at most 512. A list of lengths, for Inferentia: each is compiled."""
    captum_explanation: bool = False
    """Accepted for compatibility: every pretrained archive explains its answers where captum is installed."""
    embedding_name: str | None = None
    """Accepted for compatibility; has no effect."""
    BetterTransformer: bool | None = None
    """Run an encoder's layers on nested tensors, without padding. If left out: on a CPU, if the model supports it."""
    model_parallel: bool = False
    """Spread the model over the server's GPUs; needs accelerate there."""
    hardware: Hardware = "cpu"
    """Where the model runs: `neuron` is AWS Inf1, `neuronx` Inf2 and Trn1."""
    batch_size: Positive | None = None
    """For Inferentia: another name for `batchSize` at the top of the file."""

    task: TaskName | None = None
    """Another name for `mode`."""
    revision: Revision | None = None
    """A Hub repository's branch, tag or commit."""
    base_model: str | None = None
    """For an adapter: the model that it was trained on. If left out: the one in its adapter_config.json."""
    base_revision: Revision | None = None
    """For an adapter: the base model's branch, tag or commit."""
    allow_pickle: bool = False
    """Accept pickled weights if there are no safetensors: read with `weights_only`, stored as safetensors."""
    trust_remote_code: bool = False
    """Run the code that comes with the model; from the Hub only at a commit."""
    allow_untrained_head: bool = False
    """Build even if weights of the head are missing or have another shape. Weights of the body are always needed."""
    labels: Labels | None = None
    """Label names by index, in place of the checkpoint's; a mapping or a list."""
    dtype: Literal["float32", "float16", "bfloat16", "auto"] = "float32"
    """The weights' type when served; `auto` is the type in the checkpoint."""
    attn_implementation: Literal["eager", "sdpa", "flash_attention_2", "flex_attention"] | None = None
    """transformers' `attn_implementation`. If left out: transformers' choice for the model."""
    pack_weights: bool | None = None
    """Repack the linear layers' weights for oneDNN where that is faster on the CPU. Workers do not share packed
    weights. If left out: with one worker only."""
    top_k: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Labels or answers per input, for requests without their own `top_k`; default 1."""
    aggregation_strategy: Literal["none", "simple", "first", "average", "max"] | None = None
    """How tokens are joined to entities, as in transformers; default simple."""
    stride: Natural | None = None
    """Tokens that neighbouring windows of a long text share; default max_length // 4."""
    max_answer_length: Positive | None = None
    """The most tokens of an answer; default 30."""
    align_to_words: bool | None = None
    """Whether answers are widened to whole words. If left out: except in scripts without spaces between words."""
    generation: Generation | None = None
    """Generation parameters for requests that do not give their own."""

    @property
    def longest(self) -> int | None:
        """The longest length in `max_length`, in tokens; None if it is not set."""
        return max(self.max_length) if isinstance(self.max_length, list) else self.max_length

    @property
    def choosing_files(self) -> dict[str, Any]:
        """The settings that decide which files are taken; those that are not set are left out."""
        names = ("revision", "base_model", "base_revision", "allow_pickle", "trust_remote_code")
        return {name: value for name in names if (value := getattr(self, name))}


class HardwareSettings(Section):
    """`hardware:`, for AWS Inferentia (`handler.hardware: neuron` or `neuronx`): how to compile, and for what."""

    python: str | None = None
    """The interpreter of the compiler's environment, or that environment's folder. If left out: that of `mar`."""
    target: Literal["inf2", "trn1", "trn1n", "trn2", "trn3"] | None = None
    """neuronx: the machine to compile for; default inf2."""
    cores: Positive | None = None
    """NeuronCores of all the model's workers together. If left out: the smallest machine's, 4 on Inf1 and 2 on Inf2."""
    data_parallel: Positive = 1
    """NeuronCores that each worker spreads its batches over."""
    compiler_args: Words = None
    """More options for the compiler's command line: a text or a list."""
    compiler_timeout: Positive | None = None
    """Seconds that the compiler may take for one length. If left out: no limit."""
    auto_cast: Literal["none", "matmul", "all"] = "none"
    """What the compiler may compute with fewer bits than the model has."""
    auto_cast_type: Literal["bf16", "fp16", "tf32", "fp8_e4m3"] | None = None
    """The type to cast to. If left out: the compiler's own choice, bf16."""
    cpu_backend: bool | None = None
    """neuronx: compile without the chip. If left out: on machines that have none."""
    dynamic_batch: bool = False
    """Let the graph take any number of rows, in pieces of its batch size."""
    async_load: bool = False
    """neuronx: load graphs onto their cores in parallel."""
    lazy_load: bool = False
    """neuronx: load a graph onto its core when it first runs, or when DataParallel places it."""

    @property
    def casts(self) -> str:
        """The value of --auto-cast that neuronx's compiler gets."""
        return option(self.compiler_args or [], "--auto-cast") or self.auto_cast


class Compile(Section):
    """`pt2.compile`: `enable`, and keywords of torch.compile."""

    enable: bool = True
    """Whether to compile."""
    backend: Annotated[str, Field(min_length=1)] | None = None
    """torch.compile's `backend`."""
    mode: Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] | None = None
    """torch.compile's `mode`; not together with `options`."""
    fullgraph: bool | None = None
    """torch.compile's `fullgraph`."""
    dynamic: bool | None = None
    """torch.compile's `dynamic`."""
    options: dict[str, Any] | None = None
    """torch.compile's `options`; not together with `mode`."""


class Pt2(Section):
    """`pt2:`, as TorchServe's examples write it."""

    compile: Compile | None = None
    """Keywords of `torch.compile`; not with `save_mode: torchscript`."""


class ArchiveSettings(Section):
    """`archive:`; the built file."""

    name: ArchiveName = ""
    """The archive's name, and the model's name in TorchServe. If left out: made from the model's name."""
    version: ArchiveVersion = "1.0"
    """The model's version in TorchServe."""
    format: FormatName = "zip-store"
    """torch-model-archiver's `--archive-format`. zip-store does not compress: weights hardly shrink."""


class VerifySettings(Section):
    """`verify:`; how the finished archive is checked."""

    tolerance: Annotated[Number, Field(gt=0, le=1)] | None = None
    """The largest allowed difference of a score from the original model's (absolute). If left out, it depends on the
    type of the weights and the hardware (docs/explanation/verification.md)."""
    samples: Samples | None = None
    """Requests in the handler's format. If left out: the task's own."""


class ConfigFile(Frontend):
    """The whole file."""

    pt2: Pt2 | None = None
    """Compilation of a pretrained model when it is served."""
    handler: HandlerSettings = Field(default_factory=HandlerSettings)
    """The model, and how it answers."""
    hardware: Annotated[HardwareSettings, NotAChip] = Field(default_factory=HardwareSettings)
    """How to compile for AWS Inferentia, and for which machine."""
    archive: ArchiveSettings = Field(default_factory=ArchiveSettings)
    """The file that is built."""
    verify: VerifySettings = Field(default_factory=VerifySettings)
    """What the finished archive is checked with."""

"""What a config file may hold: types, ranges and defaults of every key, with units.

Each model is one section of the file, and a field's name is the key as it is written there. What several keys
must agree on is in `mar_pipeline.config.rules`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ..archive.formats import FormatName
from ..host.chips import option
from .values import (
    HARDWARE,
    ArchiveName,
    ArchiveVersion,
    Hardware,
    Labels,
    Lengths,
    Lowered,
    Natural,
    Number,
    Positive,
    Revision,
    Samples,
    TaskName,
    Words,
    complain,
)

# "At most" of a max_length that is not given: longer texts cost more than they say (attention grows with the
# square), and the classic encoders end here anyway.
DEFAULT_LENGTH_LIMIT = 512


class Section(BaseModel):
    """A section of the file: frozen, exact types, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=())


class Torchrun(Section):
    """TorchServe's `torchrun:`; the keys that its front end reads (ModelConfig.TorchRun.build)."""

    nnodes: Positive | None = None
    nproc_per_node: Positive | None = Field(None, alias="nproc-per-node")
    rdzv_backend: str | None = Field(None, alias="rdzv-backend")
    rdzv_endpoint: str | None = Field(None, alias="rdzv-endpoint")
    rdzv_conf: str | None = Field(None, alias="rdzv-conf")
    monitor_interval: Positive | None = Field(None, alias="monitor-interval")
    node_rank: Natural | None = Field(None, alias="node-rank")
    OMP_NUMBER_THREADS: Positive | None = None


class Frontend(Section):
    """TorchServe's front-end keys, at the top of the file (its ModelConfig.java). None: left to TorchServe,
    but for those that `mar_pipeline.config.rules.settled` fills in."""

    minWorkers: Positive | None = None
    """Workers at start; default 1."""
    maxWorkers: Positive | None = None
    """Workers at most; default minWorkers."""
    batchSize: Positive = 8
    """Requests that one call of the handler gets at most."""
    maxBatchDelay: Natural = 10
    """Milliseconds that a request waits for others to share its batch."""
    responseTimeout: Positive = 120
    """Seconds that a batch may take before its worker is restarted."""
    startupTimeout: Positive = 300
    """Seconds that a worker may take to load the model: TorchServe's 120 are short for a cold disk."""
    deviceType: Annotated[Literal["cpu", "gpu"], Lowered] | None = None
    """Where TorchServe puts the workers; default: handler.hardware, and cpu for Inferentia, which it does not know."""
    deviceIds: Annotated[list[Natural], Field(min_length=1)] | None = None
    parallelType: Annotated[Literal["pp", "tp", "pptp", "custom"], Lowered] | None = None
    parallelLevel: Natural | None = None
    torchrun: Torchrun | None = None
    maxRetryTimeoutInSec: Natural | None = None
    clientTimeoutInMills: Natural | None = None
    jobQueueSize: Natural | None = None
    useJobTicket: bool | None = None
    continuousBatching: bool | None = None
    sequenceBatching: bool | None = None
    sequenceMaxIdleMSec: Natural | None = None
    sequenceTimeoutMSec: Natural | None = None
    maxSequenceJobQueueSize: Positive | None = None
    maxNumSequence: Positive | None = None
    asyncCommunication: bool | None = None
    useVenv: bool | None = None


class Generation(Section):
    """Generation parameters for requests that do not give their own; transformers' names and meanings."""

    max_new_tokens: Positive | None = None
    do_sample: bool | None = None
    temperature: Annotated[Number, Field(gt=0, le=100)] | None = None
    top_k: Natural | None = None
    top_p: Annotated[Number, Field(gt=0, le=1)] | None = None
    repetition_penalty: Annotated[Number, Field(gt=0, le=100)] | None = None


class HandlerSettings(Section):
    """`handler:`, the reference example's keys first, then ours."""

    model_name: str | None = None
    """`starter:NAME`, a folder, or a Hub id."""
    mode: TaskName | None = None
    num_labels: Annotated[int, Field(ge=0, le=100_000)] | None = None
    """Labels of the head; None: as many as the checkpoint has. 0, which the reference example gives tasks
    without labels, counts as not given."""
    do_lower_case: bool | None = None
    """None: what the checkpoint's own tokenizer does."""
    save_mode: Literal["pretrained", "torchscript"] = "pretrained"
    max_length: Lengths | None = None
    """Tokens of an input, special ones included; for generation, of prompt and new tokens together. None: the
    model's own limit, and DEFAULT_LENGTH_LIMIT at most. Several, for Inferentia: each is compiled."""
    captum_explanation: bool = False
    embedding_name: str | None = None
    BetterTransformer: bool | None = None
    """An encoder's layers over nested tensors. None: on a CPU, where the model has such a form."""
    model_parallel: bool = False
    hardware: Hardware = "cpu"
    batch_size: Positive | None = None
    """Of Inferentia: another name for `batchSize`, at the top."""

    task: TaskName | None = None
    """Another name for `mode`."""
    revision: Revision | None = None
    """A Hub repository's branch, tag or commit."""
    base_model: str | None = None
    """Of an adapter: the model that it was trained on. None: the one that its adapter_config.json names."""
    base_revision: Revision | None = None
    allow_pickle: bool = False
    """Take pickled weights where there are no safetensors: read with torch's weights_only, kept as safetensors."""
    trust_remote_code: bool = False
    """Run the code that comes with the model; from the Hub at a commit only."""
    allow_untrained_head: bool = False
    labels: Labels | None = None
    """Names by index, instead of the checkpoint's; a plain list in the file will do."""
    dtype: Literal["float32", "float16", "bfloat16", "auto"] = "float32"
    """Of the weights when served; `auto` is what the checkpoint was saved in."""
    attn_implementation: Literal["eager", "sdpa", "flash_attention_2", "flex_attention"] | None = None
    """None: what transformers picks for the model."""
    pack_weights: bool | None = None
    """Lay the linear layers' weights out anew for the CPU where that is faster, in memory of each worker's own. None:
    with one worker; several share the weights as they are in the file."""
    top_k: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Labels or answers that a request gets when it does not say; default 1."""
    aggregation_strategy: Literal["none", "simple", "first", "average", "max"] | None = None
    """How tokens become entities; default simple."""
    stride: Natural | None = None
    """Tokens that neighbouring windows over a long text share; default max_length // 4."""
    max_answer_length: Positive | None = None
    """Tokens; default 30."""
    generation: Generation | None = None

    @property
    def longest(self) -> int | None:
        """Of the lengths that `max_length` names."""
        return max(self.max_length) if isinstance(self.max_length, list) else self.max_length

    @property
    def choosing_files(self) -> dict[str, Any]:
        """The settings that choose which files are the model; those that are not set are left out."""
        names = ("revision", "base_model", "base_revision", "allow_pickle", "trust_remote_code")
        return {name: value for name in names if (value := getattr(self, name))}


class HardwareSettings(Section):
    """`hardware:`; of Inferentia (`handler.hardware: neuron` or `neuronx`): how to compile, and for which machine."""

    python: str | None = None
    """The interpreter that has the compiler, or its environment's folder. None: the one that runs `mar`."""
    target: Literal["inf2", "trn1", "trn1n", "trn2", "trn3"] | None = None
    """The machines to compile for, with neuronx; default inf2."""
    cores: Positive | None = None
    """NeuronCores that the model's workers have together. None: the smallest machine's, of Inf1 4 and of Inf2 2."""
    data_parallel: Positive = 1
    """NeuronCores that each worker spreads its batches over."""
    compiler_args: Words = None
    """Further options of the compiler's command line: a text, or a list."""
    compiler_timeout: Positive | None = None
    """Seconds that the compiler may take for one length. None: as long as it likes."""
    auto_cast: Literal["none", "matmul", "all"] = "none"
    """What the compiler may compute in fewer bits than the model has."""
    auto_cast_type: Literal["bf16", "fp16", "tf32", "fp8_e4m3"] | None = None
    """Which type it takes then; None: the compiler's own choice, bf16."""
    cpu_backend: bool | None = None
    """Compile without the chip, with neuronx. None: where there is none."""
    dynamic_batch: bool = False
    """Let a graph take any number of rows, in pieces of its batch."""
    async_load: bool = False
    """Load a graph onto its core beside others, with neuronx."""
    lazy_load: bool = False
    """Load a graph onto its core when it first runs, or DataParallel places it, with neuronx."""

    @property
    def casts(self) -> str:
        """What neuronx's compiler may cast."""
        return option(self.compiler_args or [], "--auto-cast") or self.auto_cast


def _section(value: Any) -> Any:
    if value in HARDWARE:
        raise complain(f"is a section, of how to compile; the chip goes into handler.hardware: {value}")
    return value


class Compile(Section):
    """`pt2.compile`: `enable`, and keywords of torch.compile."""

    enable: bool = True
    backend: Annotated[str, Field(min_length=1)] | None = None
    mode: Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] | None = None
    fullgraph: bool | None = None
    dynamic: bool | None = None
    options: dict[str, Any] | None = None


class Pt2(Section):
    """`pt2:`, as TorchServe's examples write it."""

    compile: Compile | None = None


class ArchiveSettings(Section):
    """`archive:`; `name` is filled in from the model's name when it is not given."""

    name: ArchiveName = ""
    version: ArchiveVersion = "1.0"
    format: FormatName = "zip-store"
    """torch-model-archiver's `--archive-format`; zip-store is not compressed, as weights hardly shrink."""


class VerifySettings(Section):
    """`verify:`; what the finished archive is tried with."""

    tolerance: Annotated[Number, Field(gt=0, le=1)] | None = None
    """The most by which a score may differ from the original model's (absolute). None: what the type of
    its weights and its hardware allow, 1e-4 for float32 on a CPU."""
    samples: Samples | None = None
    """Requests as the handler takes them; None: the task's own."""


class ConfigFile(Frontend):
    """The whole file."""

    pt2: Pt2 | None = None
    handler: HandlerSettings = Field(default_factory=HandlerSettings)
    hardware: Annotated[HardwareSettings, BeforeValidator(_section)] = Field(default_factory=HardwareSettings)
    archive: ArchiveSettings = Field(default_factory=ArchiveSettings)
    verify: VerifySettings = Field(default_factory=VerifySettings)

"""What a config file may hold: types, ranges and defaults of every key, with units.

Each model is one section of the file, and a field's name is the key as it is written there. What several keys
must agree on is in `pipeline.config.rules`.
"""

from __future__ import annotations

import math
import re
import shlex
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from ..archive import formats
from ..host.toolchain import CHIPS, option
from ..tasks import MODES, TASKS
from ..tasks import find as find_task

COMPILED = tuple(CHIPS)
"""AWS Inferentia, whose graphs are compiled for one shape: Inf1, and Inf2 or Trn1."""
HARDWARE = ("cpu", "gpu", *COMPILED)

LONGEST = 1_000_000
"""Tokens of an input."""

# TorchServe's front end reads these keys as Java Integers.
LARGEST = 2**31 - 1

# "At most" of a max_length that is not given: longer texts cost more than they say (attention grows with the
# square), and the classic encoders end here anyway.
DEFAULT_LENGTH_LIMIT = 512


def complain(message: str) -> PydanticCustomError:
    """An error whose message is for the user as it stands."""
    return PydanticCustomError("mar", "{message}", {"message": message})


def _number(value: Any) -> Any:
    """A quoted number is a number where a fraction is wanted: YAML 1.1 readers make text of a plain 1e-4."""
    if isinstance(value, str) and re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", value):
        number = float(value)
        return number if math.isfinite(number) else value
    return value


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _task_name(value: str) -> str:
    if find_task(value) is None:
        raise PydanticCustomError("choice", "{choices}", {"choices": tuple(dict.fromkeys((*MODES, *TASKS)))})
    return value


def _hardware(value: str) -> str:
    if value not in HARDWARE:
        raise PydanticCustomError("choice", "{choices}", {"choices": HARDWARE})
    return value


def _ascending(value: list[int]) -> list[int]:
    if len(set(value)) < len(value):
        raise complain("names a length twice")
    return sorted(value)


def _words(value: Any) -> Any:
    """A command line's options, from a text or a list of texts."""
    if isinstance(value, str):
        try:
            return shlex.split(value)
        except ValueError as error:
            raise complain(f"is no command line: {error}") from None
    return value


def _labels(value: Any) -> Any:
    """Label names by index, from a list or from a mapping of index to name."""
    if isinstance(value, list):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        raise complain("expected a list of names, or a mapping of index to name")
    try:
        names = {int(key): name for key, name in value.items()}
    except ValueError:
        raise complain("the keys must be label indices: 0, 1, 2, ...") from None
    if not names:
        raise complain("holds no name")
    if sorted(names) != list(range(len(value))):
        raise complain("the indices must run from 0 without a gap")
    owners: dict[str, int] = {}
    for index, name in sorted(names.items()):
        if not isinstance(name, str) or not name.strip():
            raise complain(f"the name of label {index} is not a text")
        if owners.setdefault(name, index) != index:
            raise complain(f"labels {owners[name]} and {index} have the same name")
    return dict(sorted(names.items()))


def _bare(name: str) -> str:
    if name.endswith(formats.SUFFIXES):
        raise complain(f"give the name without {' or '.join(formats.SUFFIXES)}, which archive.format decides")
    return name


def _samples(value: Any) -> Any:
    if not isinstance(value, list) or not value:
        raise complain("expected a list of requests, with one at least")
    for index, sample in enumerate(value):
        if not (isinstance(sample, str) and sample.strip()) and not (isinstance(sample, dict) and sample):
            raise complain(f"request {index} is neither a mapping nor a text")
    return value


Number = Annotated[float, BeforeValidator(_number)]
Positive = Annotated[int, Field(ge=1, le=LARGEST)]
Natural = Annotated[int, Field(ge=0, le=LARGEST)]
TaskName = Annotated[str, AfterValidator(_task_name)]
Length = Annotated[int, Field(ge=4, le=LONGEST)]
Lengths = Annotated[
    Annotated[Length, Tag("[one]")]
    | Annotated[list[Length], Field(min_length=1), AfterValidator(_ascending), Tag("[some]")],
    Discriminator(lambda value: "[some]" if isinstance(value, list) else "[one]"),
]


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
    but for those that `pipeline.config.rules.settled` fills in."""

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
    deviceType: Annotated[Literal["cpu", "gpu"], BeforeValidator(_lower)] | None = None
    """Where TorchServe puts the workers; default: handler.hardware, and cpu for Inferentia, which it does not know."""
    deviceIds: Annotated[list[Natural], Field(min_length=1)] | None = None
    parallelType: Annotated[Literal["pp", "tp", "pptp", "custom"], BeforeValidator(_lower)] | None = None
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
    hardware: Annotated[str, AfterValidator(_hardware)] = "cpu"
    batch_size: Positive | None = None
    """Of Inferentia: another name for `batchSize`, at the top."""

    task: TaskName | None = None
    """Another name for `mode`."""
    revision: Annotated[str, Field(pattern=r"^[^\s\x00-\x1f]{1,200}$")] | None = None
    """A Hub repository's branch, tag or commit."""
    base_model: str | None = None
    """Of an adapter: the model that it was trained on. None: the one that its adapter_config.json names."""
    base_revision: Annotated[str, Field(pattern=r"^[^\s\x00-\x1f]{1,200}$")] | None = None
    allow_pickle: bool = False
    """Take pickled weights where there are no safetensors: read with torch's weights_only, kept as safetensors."""
    trust_remote_code: bool = False
    """Run the code that comes with the model; from the Hub at a commit only."""
    allow_untrained_head: bool = False
    labels: Annotated[dict[int, str], BeforeValidator(_labels)] | None = None
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
    compiler_args: Annotated[list[str] | None, BeforeValidator(_words)] = None
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

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_\-.]*$", max_length=200), AfterValidator(_bare)] = ""
    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_\-.+]*$", max_length=64)] = "1.0"
    format: formats.FormatName = "zip-store"
    """torch-model-archiver's `--archive-format`; zip-store is not compressed, as weights hardly shrink."""


class VerifySettings(Section):
    """`verify:`; what the finished archive is tried with."""

    tolerance: Annotated[Number, Field(gt=0, le=1)] | None = None
    """The most by which a score may differ from the original model's (absolute). None: 1e-4, or 2e-2 where the model is
    served in 16 bits."""
    samples: Annotated[list[Any], BeforeValidator(_samples)] | None = None
    """Requests as the handler takes them; None: the task's own."""


class ConfigFile(Frontend):
    """The whole file."""

    pt2: Pt2 | None = None
    handler: HandlerSettings = Field(default_factory=HandlerSettings)
    hardware: Annotated[HardwareSettings, BeforeValidator(_section)] = Field(default_factory=HardwareSettings)
    archive: ArchiveSettings = Field(default_factory=ArchiveSettings)
    verify: VerifySettings = Field(default_factory=VerifySettings)

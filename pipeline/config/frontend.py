"""The keys of TorchServe's front end, at the top of a config file and of model-config.yaml."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .values import Lowered, Natural, Positive, Section


class Torchrun(Section):
    """`torchrun:`; the keys that TorchServe's front end reads (ModelConfig.TorchRun.build)."""

    nnodes: Positive | None = None
    """torchrun's `--nnodes`."""
    nproc_per_node: Positive | None = Field(None, alias="nproc-per-node")
    """torchrun's `--nproc-per-node`."""
    rdzv_backend: str | None = Field(None, alias="rdzv-backend")
    """torchrun's `--rdzv-backend`."""
    rdzv_endpoint: str | None = Field(None, alias="rdzv-endpoint")
    """torchrun's `--rdzv-endpoint`."""
    rdzv_conf: str | None = Field(None, alias="rdzv-conf")
    """torchrun's `--rdzv-conf`."""
    monitor_interval: Positive | None = Field(None, alias="monitor-interval")
    """torchrun's `--monitor-interval`."""
    node_rank: Natural | None = Field(None, alias="node-rank")
    """torchrun's `--node-rank`."""
    OMP_NUMBER_THREADS: Positive | None = None
    """OpenMP threads of each process."""


class Frontend(Section):
    """TorchServe's front-end keys, at the top of the file (its ModelConfig.java). None leaves a key to TorchServe;
    `mar_pipeline.config.rules.settled` fills some of them in."""

    minWorkers: Positive | None = None
    """Workers at start; default 1."""
    maxWorkers: Positive | None = None
    """The most workers; default minWorkers."""
    batchSize: Positive = 8
    """The most requests in one call of the handler."""
    maxBatchDelay: Natural = 10
    """Milliseconds that a request waits for others to share its batch."""
    responseTimeout: Positive = 120
    """Seconds that a batch may take before its worker is restarted."""
    startupTimeout: Positive = 300
    """Seconds that a worker may take to load the model. TorchServe's own default, 120, is short for a cold disk."""
    deviceType: Annotated[Literal["cpu", "gpu"], Lowered] | None = None
    """Where TorchServe puts the workers; default: as handler.hardware, or cpu for Inferentia."""
    deviceIds: Annotated[list[Natural], Field(min_length=1)] | None = None
    """GPUs that TorchServe may give to the workers."""
    parallelType: Annotated[Literal["pp", "tp", "pptp", "custom"], Lowered] | None = None
    """TorchServe's own: how a large model is spread (`pp`, `tp`, `pptp`, `custom`)."""
    parallelLevel: Natural | None = None
    """TorchServe's own: processes of one worker."""
    torchrun: Torchrun | None = None
    """TorchServe's own: how torchrun starts a worker's processes."""
    maxRetryTimeoutInSec: Natural | None = None
    """Seconds during which TorchServe restarts a failed worker."""
    clientTimeoutInMills: Natural | None = None
    """Milliseconds after which a waiting request is dropped."""
    jobQueueSize: Natural | None = None
    """The most requests that wait for this model."""
    useJobTicket: bool | None = None
    """Refuse a request at once when no worker is free."""
    continuousBatching: bool | None = None
    """TorchServe's own; the handlers here do not use it."""
    sequenceBatching: bool | None = None
    """TorchServe's own; the handlers here do not use it."""
    sequenceMaxIdleMSec: Natural | None = None
    """TorchServe's own, for sequence batching."""
    sequenceTimeoutMSec: Natural | None = None
    """TorchServe's own, for sequence batching."""
    maxSequenceJobQueueSize: Positive | None = None
    """TorchServe's own, for sequence batching."""
    maxNumSequence: Positive | None = None
    """TorchServe's own, for sequence batching."""
    asyncCommunication: bool | None = None
    """TorchServe's own; the handlers here do not use it."""
    useVenv: bool | None = None
    """TorchServe's own: run the worker in a virtual environment of its own."""

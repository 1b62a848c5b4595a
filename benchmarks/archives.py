"""What is served: the same checkpoint as archives of every contender, built by `mar build` or packed by hand."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

MAX_LENGTH = 150
"""Of short and mixed texts, for all contenders: the reference example's own default."""

LONG_LENGTH = 512
"""Of long texts: as much as the encoder takes."""

MAX_BATCH_DELAY = 10
"""Milliseconds; `mar build`'s default."""

BUILT: dict[str, dict[str, Any]] = {
    "default": {},
    "split": {"BetterTransformer": False},
    "torchscript": {"save_mode": "torchscript"},
}
"""What `mar build` makes, and the settings that differ from its defaults."""

PACKED = {"padding": "padding_handler.py", "empty": "empty_handler.py"}
"""What torch-model-archiver packs with a handler of this folder."""

CONTENDERS = ("default", "split", "torchscript", "padding")

GENERATION: dict[str, dict[str, Any]] = {"pretrained": {}, "torchscript": {"save_mode": "torchscript"}}
"""What `mar build` makes of the generator."""

GENERATION_LENGTH = 256


@dataclass(frozen=True, kw_only=True)
class Variant:
    """An archive: a contender with TorchServe's settings for it."""

    contender: str
    batch_size: int
    workers: int = 1
    max_length: int = MAX_LENGTH
    task: str = "sequence_classification"

    @property
    def name(self) -> str:
        kind = "generation-" if self.task == "text_generation" else ""
        return f"{kind}{self.contender}-b{self.batch_size}-w{self.workers}-{self.max_length}"

    @property
    def settings(self) -> dict[str, Any]:
        """The archive's model-config.yaml, less what says which model."""
        special = GENERATION if self.task == "text_generation" else BUILT
        return {
            "batchSize": self.batch_size,
            "maxBatchDelay": MAX_BATCH_DELAY,
            "minWorkers": self.workers,
            "maxWorkers": self.workers,
            "handler": {"mode": self.task, "max_length": self.max_length, **special.get(self.contender, {})},
        }


def build(variants: Iterable[Variant], classifier: Path, generator: Path, folder: Path) -> dict[Variant, Path]:
    """The archives of `variants` in `folder`. Raises CalledProcessError if one cannot be built."""
    wanted = list(dict.fromkeys(variants))
    found = {
        variant: _pack(variant, classifier, folder / "packed") for variant in wanted if variant.contender in PACKED
    }
    made = [variant for variant in wanted if variant not in found]
    configs = folder / "configs"
    configs.mkdir(parents=True, exist_ok=True)
    files = []
    for variant in made:
        content = variant.settings
        model = generator if variant.task == "text_generation" else classifier
        content["handler"]["model_name"] = str(model.resolve())
        content["archive"] = {"name": variant.name}
        files.append(configs / f"{variant.name}.yaml")
        files[-1].write_text(yaml.safe_dump(content), encoding="utf-8")
    if not made:
        return found
    command = [
        sys.executable,
        "-m",
        "mar_pipeline",
        "build",
        *map(str, files),
        "--out",
        str(folder / "built"),
        "--json",
    ]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    paths = {archive["name"]: Path(archive["path"]) for archive in json.loads(done.stdout)["archives"]}
    return {**found, **{variant: paths[variant.name].resolve() for variant in made}}


def longest(checkpoint: Path, wanted: int) -> int:
    """`wanted`, or as many tokens as the checkpoint takes if that is less."""
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    return min(wanted, int(config.get("max_position_embeddings") or wanted))


def _pack(variant: Variant, checkpoint: Path, folder: Path) -> Path:
    from model_archiver.model_archiver import ModelArchiver
    from model_archiver.model_archiver_config import ModelArchiverConfig

    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / f"{variant.name}.mar"
    files = [] if variant.contender == "empty" else [file for file in checkpoint.iterdir() if file.is_file()]
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory(dir=folder) as sources:
        config = Path(sources) / "model-config.yaml"
        config.write_text(yaml.safe_dump(variant.settings), encoding="utf-8")
        handler = shutil.copy(Path(__file__).parent / PACKED[variant.contender], sources)
        # The archiver stages in TMPDIR/NAME and deletes what is there.
        tempfile.tempdir = sources
        try:
            ModelArchiver.generate_model_archive(
                ModelArchiverConfig(
                    model_name=variant.name,
                    version="1.0",
                    handler=os.fspath(handler),
                    extra_files=",".join(map(str, files)) or None,
                    config_file=str(config),
                    export_path=str(folder),
                    archive_format="zip-store",
                    force=True,
                )
            )
        finally:
            tempfile.tempdir = before
    return archive.resolve()

"""Small archives, made by the real torch-model-archiver, and one real TorchServe for all tests that can share it.

The workers of these archives find an empty module instead of torch, which TorchServe's worker imports without needing
it: they start in a tenth of the time. Real models in a real TorchServe are tried by the tests of whole builds.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mar_pipeline.archive import writer
from mar_pipeline.archive.writer import Member
from mar_pipeline.serving.server import Server

ECHO = """
import json, os

class Echo:
    def initialize(self, context):
        self.name = context.manifest["model"]["modelName"]

    def handle(self, data, context):
        return [self.one(row.get("body", row.get("data")), len(data)) for row in data]

    def one(self, body, batch):
        kind = type(body).__name__
        if isinstance(body, (bytes, bytearray)):
            body = json.loads(body)
        if body.get("want") == "environment":
            return dict(os.environ)
        if body.get("want") == "kind":
            return {"kind": kind, "batch": batch}
        if body.get("want") == "death":
            os._exit(1)
        return {"you": body, "half": 0.5}
"""
HANDLER = """
class Handler:
    def initialize(self, context):
        {initialize}

    def handle(self, data, context):
        return ["fine"] * len(data)
"""
BROKEN = {
    "raises": HANDLER.format(initialize="raise ValueError('the weights have the wrong shape')"),
    "imports": "import surely_not_installed\n" + HANDLER.format(initialize="pass"),
    "twoclass": HANDLER.format(initialize="pass") + "class Other:\n    pass\n",
    "memory": HANDLER.format(initialize="raise MemoryError('too big')"),
    "killed": "import os\n" + HANDLER.format(initialize="os.kill(os.getpid(), 9)"),
    "hangs": "import time\n" + HANDLER.format(initialize="time.sleep(600)"),
    "sleeps": "import time\n" + HANDLER.format(initialize="time.sleep(600)"),
}
SAMPLES = [{"text": "a"}, {"text": "bb"}, {"text": "ccc", "top_k": 2}]


def pack(folder: Path, name: str, code: str, kind: str = "zip-store", **front_end: int) -> Path:
    """Pack a handler whose source is `code`; the archive's path."""
    from model_archiver.model_archiver import ModelArchiver
    from model_archiver.model_archiver_config import ModelArchiverConfig

    sources = folder / f"{name}-sources"
    sources.mkdir(parents=True)
    handler, config, samples = sources / f"{name}.py", sources / "model-config.yaml", sources / "samples.json"
    handler.write_text(code, encoding="utf-8")
    settings = {"minWorkers": 1, "maxWorkers": 1, "maxRetryTimeoutInSec": 1, **front_end}
    config.write_text("".join(f"{key}: {value}\n" for key, value in settings.items()), encoding="utf-8")
    samples.write_text(json.dumps(SAMPLES), encoding="utf-8")
    # The archiver stages in TMPDIR/NAME and deletes what is there.
    before, tempfile.tempdir = tempfile.tempdir, str(sources)
    try:
        ModelArchiver.generate_model_archive(
            ModelArchiverConfig(
                model_name=name,
                version="1.0",
                handler=str(handler),
                extra_files=str(samples),
                config_file=str(config),
                export_path=str(folder),
                archive_format=kind,
                force=True,
            )
        )
    finally:
        tempfile.tempdir = before
    suffix = {"no-archive": "", "tgz": ".tar.gz"}.get(kind, ".mar")
    return folder / f"{name}{suffix}"


def written(folder: Path, name: str, code: str, form: str) -> Path:
    """The same, but the file is written by `archive.writer`: as `form` has it, or as it has to be beyond 4 GiB."""
    source = pack(folder / "sources", name, code, batchSize=4, maxBatchDelay=100)
    with zipfile.ZipFile(source) as opened:
        members = [Member.of(member, opened.read(member)) for member in opened.namelist()]
    if form == "tgz":
        target = folder / f"{name}.tar.gz"
        writer.write_tar(target, members, writer.EPOCH, lambda _: None, root=name)
        return target
    target = folder / f"{name}.mar"
    with pytest.MonkeyPatch.context() as patch:
        if form == "zip64":
            patch.setattr(writer, "_WIDE", 0)
            patch.setattr(writer, "_FAR", 0)
        writer.write_zip(target, members, writer.EPOCH, lambda _: None, deflated=form == "default")
    return target


@pytest.fixture(scope="session")
def light(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment whose workers import an empty torch."""
    folder = tmp_path_factory.mktemp("light")
    (folder / "torch").mkdir()
    (folder / "torch" / "__init__.py").write_text("class Tensor:\n    pass\n", encoding="utf-8")
    return {"PYTHONPATH": str(folder)}


@pytest.fixture(scope="session")
def echoes(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One handler in every format."""
    folder = tmp_path_factory.mktemp("echoes")
    return [
        pack(folder, f"echo-{kind}", ECHO, kind, batchSize=4, maxBatchDelay=100)
        for kind in ("zip-store", "default", "tgz", "no-archive")
    ] + [written(folder, f"echo-ours-{form}", ECHO, form) for form in ("zip-store", "default", "tgz", "zip64")]


@pytest.fixture(scope="session")
def broken(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Archives that do not load, each for its own reason."""
    folder = tmp_path_factory.mktemp("broken")
    found = [pack(folder, name, code, startupTimeout=90 if name == "sleeps" else 4) for name, code in BROKEN.items()]
    return found


@pytest.fixture(scope="session")
def server(
    echoes: list[Path], broken: list[Path], light: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A TorchServe with good and broken archives, the good ones READY."""
    made = Server([*echoes, *broken], env=light, keep=tmp_path_factory.mktemp("kept"))
    # What a user's shell may hold; nothing of it reaches the tests of the rest of the session.
    with pytest.MonkeyPatch.context() as shell:
        shell.setenv("HF_TOKEN", "hf_secret")
        shell.setenv("SOMEBODYS_SETTING", "hf_secret")
        shell.setenv("TS_INFERENCE_ADDRESS", "http://0.0.0.0:8080")
        shell.setenv("TS_LOAD_MODELS", "all")
        made.start()
    try:
        made.wait_ready([path.name.partition(".")[0] for path in echoes])
        yield made
    finally:
        made.stop()

"""An archive's manifest, record, settings and other JSON, as `mar check` reads them all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from mar_pipeline.audit import check as audit
from tests.support.archiver import FILES, provenance

from .changes import changed_bytes, changed_json, of_json, text_of
from .harness import Reader, check

_MODEL = {
    "modelName": "m", "modelVersion": "1.0", "handler": "handler.py", "serializedFile": "model.safetensors",
    "configFile": "model-config.yaml", "requirementsFile": "requirements.txt", "modelFile": "model.py",
}  # fmt: skip
MANIFEST = {"createdOn": "a", "runtime": "python", "model": _MODEL, "archiverVersion": "0.12.0"}
SETTINGS = {
    "minWorkers": 1,
    "maxWorkers": 1,
    "batchSize": 8,
    "handler": {"max_length": 128, "labels": ["a"]},
    "pt2": {},
}
RECORD = json.loads(provenance(FILES, source={"kind": "folder", "remote_code": ["handler.py"]}))
GRAPH = {"format": 3, "inputs": ["input_ids"], "weights": {"a": "b"}}
_SEEDS = {
    "MAR-INF/MANIFEST.json": MANIFEST,
    "provenance.json": RECORD,
    "model-config.yaml": SETTINGS,
    "config.json": {"model_type": "bert", "architectures": ["BertModel"], "id2label": {"0": "a"}},
    "tokenizer_config.json": {"tokenizer_class": "ByT5Tokenizer"},
    "graph.json": GRAPH,
}
_OTHERS = st.one_of(
    changed_bytes(st.just(b"torch==2.4.0\npkg @ https://example.org/p.whl\n-r x\n")).map(
        lambda data: ("requirements.txt", data)
    ),
    changed_bytes(st.just(FILES["handler.py"])).map(lambda data: ("handler.py", data)),
    changed_bytes(st.just(b"a: &a [1, *a]\nb: !!python/object x\n<<: *a\n")).map(
        lambda data: ("model-config.yaml", data)
    ),
)


@st.composite
def files(draw: Callable[..., Any]) -> bytes:
    """One to three changed files, as JSON: path -> text."""
    changed: dict[str, str] = {}
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from(list(_SEEDS)))
        how = draw(st.sampled_from(("json", "json", "bytes", "other")))
        if how == "json":
            data = text_of(draw(changed_json([_SEEDS[name]])))
        elif how == "bytes":
            data = draw(of_json([_SEEDS[name]]))
        else:
            name, data = draw(_OTHERS)
        changed[name] = data.decode("latin-1")
    return json.dumps(changed).encode()


def read(data: bytes, folder: Path) -> None:
    changed = {name: text.encode("latin-1") for name, text in json.loads(data).items()}
    sound = {
        **FILES,
        **{name: json.dumps(value).encode() for name, value in _SEEDS.items()},
        "requirements.txt": b"a==1\n",
    }
    for name, content in {**sound, **changed}.items():
        (folder / "a" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "a" / name).write_bytes(content)
    audit.show(audit.check(folder / "a"))


READER = Reader("check_archive", read, files())


def test_no_archive_ends_the_check(tmp_path: Path) -> None:
    check(READER, tmp_path)


def test_the_seeds_are_read(tmp_path: Path) -> None:
    read(b"{}", tmp_path)

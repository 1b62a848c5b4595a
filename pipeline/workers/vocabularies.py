"""Worker side: why transformers cannot load a tokenizer: a damaged tokenizer.json, or a package that reads other
vocabularies."""

from __future__ import annotations

import base64
import json
from importlib.util import find_spec
from pathlib import Path

from ..errors import InputError


def refuse_damaged(folder: Path) -> None:
    """Raises InputError if a checkpoint's tokenizer.json is not JSON."""
    file = folder / "tokenizer.json"
    try:
        if file.exists():
            json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"tokenizer.json cannot be read: {error}.",
            "A download or a copy was cut short, or it is a Git LFS pointer.",
            "Fetch the file again (`git lfs pull` in a clone), or save the tokenizer again with save_pretrained().",
        ) from None


def refuse_without_package(folder: Path) -> None:
    """Raises InputError if the only vocabulary of a checkpoint is a *.model file, and the package that reads it is not
    installed. (transformers' own error may name another one: it tries several.)"""
    file = next(iter(sorted(folder.glob("*.model"))), None)
    if file is None or (folder / "tokenizer.json").exists():
        return
    tiktoken = _is_tiktoken(file)
    kind, packages = ("tiktoken", ["tiktoken"]) if tiktoken else ("SentencePiece", ["sentencepiece", "google.protobuf"])
    missing = [name.rpartition(".")[2] for name in packages if not _is_installed(name)]
    if missing:
        install = "tiktoken" if tiktoken else "mar-pipeline[sentencepiece]"
        raise InputError(
            f"The checkpoint's tokenizer is a {kind} model ({file.name}) without a tokenizer.json, and reading that "
            f"needs the package {' and '.join(missing)}, which is not installed.",
            "Only the build needs it: the archive gets a tokenizer.json that is made of the model.",
            f"Install it: pip install '{install}'",
        )


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # of the package around a module
        return False


def _is_tiktoken(file: Path) -> bool:
    """Whether a vocabulary has lines of a token in base64 and its rank; a SentencePiece model is a binary message."""
    with file.open("rb") as stream:
        parts = stream.readline(1000).split()
    try:
        return len(parts) == 2 and parts[1].isdigit() and bool(base64.b64decode(parts[0], validate=True))
    except ValueError:
        return False

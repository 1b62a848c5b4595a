"""What `mar check` takes for a pickle, by its bytes and by its name."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest

from mar_pipeline.audit import pickles
from tests.support.archiver import findings, make

Found = dict[str, Any]


@pytest.fixture(scope="module")
def torch_files() -> dict[str, bytes]:
    import torch

    made = {}
    for name, options in {"new.bin": {}, "old.pt": {"_use_new_zipfile_serialization": False}}.items():
        file = io.BytesIO()
        torch.save({"a": torch.zeros(2)}, file, **options)
        made[name] = file.getvalue()
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), file)
    return {**made, "script.pt": file.getvalue()}


@pytest.mark.parametrize("form", ["zip-store", "default", "tgz", "no-archive"])
def test_files_of_torch_save_are_errors_and_torchscript_is_none(
    tmp_path: Path, torch_files: dict[str, bytes], form: str
) -> None:
    said = findings(make(tmp_path, dict(torch_files), form=form), "error")
    assert sorted(line.partition(":")[0] for line in said) == ["new.bin", "old.pt"]
    assert all("a file of torch.save" in line and "torch._utils._rebuild_tensor_v2" in line for line in said)


class _Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("true",)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_is_known_by_its_bytes_whatever_its_name(tmp_path: Path, protocol: int) -> None:
    files: dict[str, bytes | None] = {
        "weights.dat": pickle.dumps({"a": [1, 2]}, protocol),
        "evil.dat": pickle.dumps(_Harmful(), protocol),
        "evil.gz": gzip.compress(pickle.dumps(_Harmful(), protocol)),
    }
    archive = make(tmp_path, files)
    errors = {line.partition(":")[0]: line for line in findings(archive, "error")}
    assert sorted(errors) == ["evil.dat", "evil.gz", "weights.dat"]
    assert [name for name, line in sorted(errors.items()) if "calls posix.system" in line] == ["evil.dat", "evil.gz"]


def test_arrays_of_objects_are_pickles_and_arrays_of_numbers_are_not(tmp_path: Path) -> None:
    import numpy

    files: dict[str, bytes | None] = {}
    for name, array in {"numbers.npy": numpy.zeros(3), "objects.npy": numpy.array([{}], dtype=object)}.items():
        file = io.BytesIO()
        numpy.save(file, array, allow_pickle=True)
        files[name] = file.getvalue()
    file = io.BytesIO()
    numpy.savez(file, a=numpy.array([{}], dtype=object))
    said = findings(make(tmp_path, {**files, "many.npz": file.getvalue()}))
    assert sorted(line.partition(":")[0] for line in said) == ["many.npz", "objects.npy"]


def test_a_pickle_without_code_is_one_too(tmp_path: Path) -> None:
    files: dict[str, bytes | None] = {"a.pkl": pickle.dumps({}, 0), "b.pkl": b"no pickle at all", "c.bin": b"N."}
    said = findings(make(tmp_path, files), "error")
    assert sorted(line.partition(":")[0] for line in said) == ["a.pkl", "b.pkl", "c.bin"]
    assert [line for line in said if line.startswith("b.pkl: is a pickle by its name")]


@pytest.mark.parametrize("start", [b"\x80\x02", b"\x80\x04\xff\xff\xff", b"\x80\x02}"])
def test_bytes_that_only_begin_like_a_pickle_are_none(start: bytes) -> None:
    data = start + bytes(100)
    with pytest.raises((pickle.UnpicklingError, EOFError, KeyError, ValueError)):
        pickle.loads(data)
    assert pickles.look(data, len(data)) is None

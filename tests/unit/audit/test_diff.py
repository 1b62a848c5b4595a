"""`mar diff`: archives of the real torch-model-archiver side by side."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from mar_pipeline import __main__ as command
from mar_pipeline.archive.contents import describe
from mar_pipeline.audit.diff import compare
from mar_pipeline.errors import InputError
from tests.support.archiver import FILES, HANDLER, VERSIONS, WEIGHTS, make, manifest, rewrite, safetensors

Changes = dict[str, bytes | None]


def said(found: dict[str, Any]) -> list[str]:
    return [f"{one['group']}: {one['text']}" for one in found["differences"]]


def against(folder: Path, changes: Changes, **more: Any) -> dict[str, Any]:
    """What differs from the plain archive in one with these changes."""
    return compare(_same_time(make(folder / "a")), _same_time(make(folder / "b", changes, **more)))


def _same_time(archive: Path) -> Path:
    """The archiver writes the present second into each archive."""
    return manifest(archive, top={"createdOn": "01/01/2026 00:00:00"})


def test_help_tells_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(["diff", "--help"]) == 0
    assert "5 the archives differ." in " ".join(capsys.readouterr().out.split())


def test_an_archive_and_its_copy_do_not_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = make(tmp_path)
    second = shutil.copy(first, tmp_path / "copy.mar")
    assert command.run(["diff", str(first), str(second)]) == 0
    assert capsys.readouterr().out == "Nothing differs.\n"
    assert command.run(["diff", str(first), str(second), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {
        "a": str(first), "b": str(second), "same": True, "meaning": "Nothing differs.", "differences": [],
    }  # fmt: skip


def test_archives_that_differ_end_with_5_and_say_what_that_means(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = make(tmp_path)
    second = rewrite(Path(shutil.copy(first, tmp_path / "b.mar")), {"samples.json": b'[{"text": "a"}, {"text": "b"}]'})
    assert command.run(["diff", str(first), str(second)]) == 5
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "samples: 1 -> 2 requests, 1 of them the same",
        "The same model and answers; only the sample requests differ.",
    ]


@pytest.mark.parametrize("form", ["default", "tgz", "no-archive"])
def test_another_container_of_the_same_files_is_told_as_that(tmp_path: Path, form: str) -> None:
    first = make(tmp_path / "a")
    with zipfile.ZipFile(first) as opened:
        told = opened.read("MAR-INF/MANIFEST.json")
        opened.extractall(tmp_path / "files")
    second = tmp_path / "b" / "model"
    if form == "no-archive":
        shutil.move(tmp_path / "files", tmp_path / "model")
        second = tmp_path / "model"
    elif form == "tgz":
        second = Path(f"{tmp_path}/model.tar.gz")
        shutil.move(tmp_path / "files", tmp_path / "model")
        subprocess.run(["tar", "czf", str(second), "-C", str(tmp_path), "model"], check=True)
    else:
        second = rewrite(make(tmp_path / "b", form="default"), {"MAR-INF/MANIFEST.json": told})
    found = compare(first, second)
    assert [one["group"] for one in found["differences"]] == ["container"]
    assert found["meaning"] == "The same files, so the same model and answers: only the container differs."


def test_another_container_of_other_files_is_told_beside_them(tmp_path: Path) -> None:
    found = against(tmp_path, {"samples.json": b"[]"}, form="default")
    assert [one["group"] for one in found["differences"]] == ["samples"]
    tar = make(tmp_path / "tar", {"samples.json": b"[]"}, form="tgz")
    found = compare(make(tmp_path / "c"), tar)
    assert {"samples", "container"} <= {one["group"] for one in found["differences"]}


def test_another_time_of_the_same_files_is_a_container_too(tmp_path: Path) -> None:
    first = make(tmp_path)
    second = tmp_path / "b.mar"
    with zipfile.ZipFile(first) as opened, zipfile.ZipFile(second, "w") as written:
        for info in opened.infolist():
            written.writestr(zipfile.ZipInfo(info.filename, (2001, 2, 3, 4, 5, 6)), opened.read(info))
    assert said(compare(first, second)) == ["container: the same files in a zip file with different bytes: times"]


def test_the_format_that_a_build_records_is_the_containers(tmp_path: Path) -> None:
    settings = {"settings": {"archive": {"format": "zip-store"}}}
    first = _same_time(make(tmp_path / "a", record=settings))
    settings["settings"]["archive"]["format"] = "tgz"
    found = compare(first, _same_time(make(tmp_path / "b", record=settings)))
    assert said(found) == ["container: format zip-store -> tgz"]


def test_a_later_archive_of_the_same_files_differs_in_its_record_only(tmp_path: Path) -> None:
    first = make(tmp_path / "a")
    second = manifest(make(tmp_path / "b"), top={"createdOn": "02/01/2026 00:00:00"})
    found = compare(first, second)
    (line,) = said(found)
    assert line.startswith("manifest: createdOn ")
    assert found["meaning"] == "The same model and answers; only the record of the build differs."


def test_values_of_weights_that_differ_are_counted_and_named(tmp_path: Path) -> None:
    other = {**WEIGHTS, "head.weight": ("F32", [2], b"\1" * 8), "encoder.bias": ("F32", [3], b"\1" * 12)}
    found = against(tmp_path, {"model.safetensors": safetensors(other)})
    first, second = said(found)
    assert first.startswith("weights: model.safetensors differs (")
    assert second == "weights: only values differ, in 2 of 3 tensors: encoder.bias, head.weight"
    assert found["meaning"] == "The answers may differ."


def test_tensors_added_removed_reshaped_and_of_another_type_are_told(tmp_path: Path) -> None:
    other = {
        "encoder.weight": ("F32", [3, 2], bytes(range(24))),
        "encoder.bias": ("I32", [3], bytes(12)),
        "pooler.weight": ("F32", [1], b"abcd"),
    }
    lines = said(against(tmp_path, {"model.safetensors": safetensors(other)}))
    assert lines[1:] == [
        "weights: 1 tensor added: pooler.weight",
        "weights: 1 tensor removed: head.weight",
        "weights: 1 tensor reshaped: encoder.weight [2, 3] -> [3, 2]",
        "weights: 1 tensor of a different dtype: encoder.bias F32 -> I32",
    ]


def test_many_tensors_are_counted_and_a_few_are_named(tmp_path: Path) -> None:
    more = {f"layer{index}": ("F32", [1], bytes([index] * 4)) for index in range(9)}
    lines = said(against(tmp_path, {"model.safetensors": safetensors({**WEIGHTS, **more})}))
    assert lines[1:] == ["weights: 9 tensors added: layer0, layer1, layer2 and 6 more"]


def test_tensors_under_another_prefix_are_renamed(tmp_path: Path) -> None:
    other = {f"model.{name}": tensor for name, tensor in WEIGHTS.items() if name != "head.weight"}
    lines = said(
        against(tmp_path, {"model.safetensors": safetensors({**other, "head.weight": WEIGHTS["head.weight"]})})
    )
    assert lines[1].startswith("weights: 2 tensors renamed: encoder.weight -> model.encoder.weight")


@pytest.mark.parametrize("way", ["order", "metadata", "two files"])
def test_the_same_tensors_in_another_file_are_no_other_answers(tmp_path: Path, way: str) -> None:
    turned = dict(reversed(WEIGHTS.items()))
    changes: Changes = {"model.safetensors": safetensors(turned, note="x" if way == "metadata" else "")}
    if way == "two files":
        parts = [dict(list(WEIGHTS.items())[:1]), dict(list(WEIGHTS.items())[1:])]
        names = [f"model-0000{part}-of-00002.safetensors" for part in (1, 2)]
        changes = {name: safetensors(part) for name, part in zip(names, parts, strict=True)}
        changes |= {"model.safetensors": None, "model.safetensors.index.json": b'{"weight_map": {}}'}
    found = against(tmp_path, changes)
    assert said(found)[-1] == "weights: all 3 tensors are the same: only the layout of the file differs"
    assert found["meaning"] == "The same model and answers; only the record of the build differs."


GAP = safetensors({"a": ("F32", [1], bytes(4))}).replace(b"[0, 4]", b"[4, 8]") + bytes(4)


@pytest.mark.parametrize(
    "data", [b"", b"short", b"\xff" * 100, safetensors(WEIGHTS)[:-1], b"\2" + bytes(7) + b"[]", GAP], ids=range(6)
)
def test_weights_that_make_no_sense_are_still_told(tmp_path: Path, data: bytes) -> None:
    found = against(tmp_path, {"model.safetensors": data})
    assert "weights: which tensors differ is unknown: not a safetensors file" in said(found)[1]


def test_a_traced_model_of_the_same_code_differs_in_traces_of_the_build_only(tmp_path: Path) -> None:
    def traced(code: bytes, debug: bytes, weight: bytes) -> bytes:
        file = tmp_path / "model.pt"
        with zipfile.ZipFile(file, "w") as opened:
            opened.writestr(f"root{len(debug)}/code/__torch__.py", code)
            opened.writestr(f"root{len(debug)}/code/__torch__.py.debug_pkl", debug)
            opened.writestr(f"root{len(debug)}/data/0", weight)
            opened.writestr(f"root{len(debug)}/constants.pkl", b"")
        return file.read_bytes()

    first = _same_time(make(tmp_path / "a", {"model.pt": traced(b"a", b"b", b"c")}))
    found = compare(first, _same_time(make(tmp_path / "b", {"model.pt": traced(b"a", b"other", b"c")})))
    assert "code and values are the same" in said(found)[0]
    assert found["meaning"].startswith("The same model and answers")
    found = compare(first, _same_time(make(tmp_path / "c", {"model.pt": traced(b"A", b"b", b"C")}, form="default")))
    assert "code differs in code/__torch__.py; 1 of 4 other records differ" in said(found)[0]
    assert found["meaning"] == "The answers may differ."


SERVER = "The same model and answers; the server runs it differently."


ANSWERS = "The answers may differ."


@pytest.mark.parametrize(
    ("changes", "line", "meaning"),
    [
        (
            {"model-config.yaml": FILES["model-config.yaml"].replace(b"128", b"256")},
            "settings: handler.max_length 128 -> 256",
            ANSWERS,
        ),
        (
            {"model-config.yaml": FILES["model-config.yaml"].replace(b"batchSize: 8", b"batchSize: 4")},
            "settings: batchSize 8 -> 4",
            SERVER,
        ),
        (
            {"model-config.yaml": b"deviceType: gpu\n" + FILES["model-config.yaml"]},
            "settings: deviceType is only in B (gpu)",
            ANSWERS,
        ),
        (
            {"model-config.yaml": FILES["model-config.yaml"] + b"  top_k: 2\n"},
            "settings: handler.top_k is only in B (2)",
            ANSWERS,
        ),
        (
            {"model-config.yaml": b"# a comment\n" + FILES["model-config.yaml"]},
            "settings: model-config.yaml is formatted differently; its values are the same",
            "The same model and answers; only the record of the build differs.",
        ),
        (
            {"index_to_name.json": b'{"0": "bad", "1": "yes"}'},
            "labels: 0 no -> bad",
            "The same model; its labels have other names, so the answers differ in those.",
        ),
        ({"tokenizer.json": b"{ }"}, "tokenizer: tokenizer.json differs (", ANSWERS),
        (
            {"tokenizer_config.json": b'{"do_lower_case": false}'},
            "tokenizer: tokenizer_config.json: do_lower_case true -> false",
            ANSWERS,
        ),
        ({"handlers/base.py": b"# other\n"}, "handler code: handlers/base.py differs (", ANSWERS),
        ({"handlers/more.py": b"# more\n"}, "handler code: handlers/more.py is only in B (7 B)", ANSWERS),
        (
            {"readme.txt": b"x"},
            "other files: readme.txt is only in B (1 B)",
            "The same model, settings and code; files differ that only the handler knows how to use.",
        ),
    ],
    ids=lambda value: str(value)[:30],
)
def test_each_kind_of_difference_is_told_in_its_words(
    tmp_path: Path, changes: Changes, line: str, meaning: str
) -> None:
    found = against(tmp_path, changes)
    (told,) = said(found)
    assert told.startswith(line)
    assert found["meaning"] == meaning


def test_other_versions_and_sources_are_records(tmp_path: Path) -> None:
    record = {
        "versions": {**VERSIONS, "torch": "2.13.0"},
        "source": {"kind": "hub", "repo": "a/b", "commit": "c" * 40},
        "checkpoint": {"config.json": "d" * 64},
    }
    found = against(tmp_path, {}, record=record)
    assert said(found) == [
        "versions: torch 2.12.0 -> 2.13.0",
        "source: kind folder -> hub",
        "source: repo is only in B (a/b)",
        f"source: commit is only in B ({'c' * 40})",
        "source: the checkpoint's config.json is only in B (dddddd..)",
    ]
    assert found["meaning"] == "The same model and answers; only the record of the build differs."


def test_a_record_that_names_other_digests_than_before_is_no_sameness(tmp_path: Path) -> None:
    found = against(tmp_path, {}, record={"files": {"config.json": "0" * 64}})
    assert [one["group"] for one in found["differences"]] == ["source"]


@pytest.mark.parametrize(
    ("changes", "line", "meaning"),
    [
        ({"modelVersion": "1.1"}, "manifest: modelVersion 1.0 -> 1.1", SERVER),
        ({"handler": "other.py"}, "manifest: handler handler.py -> other.py", ANSWERS),
        ({"top": {"runtime": "python3"}}, "manifest: runtime python -> python3", ANSWERS),
    ],
    ids=["version", "handler", "runtime"],
)
def test_the_manifest_is_told_by_its_entries(tmp_path: Path, changes: dict[str, Any], line: str, meaning: str) -> None:
    first = make(tmp_path)
    second = manifest(Path(shutil.copy(first, tmp_path / "b.mar")), **changes)
    found = compare(first, second)
    assert (said(found), found["meaning"]) == ([line], meaning)


def test_numbers_that_are_equal_in_python_only_do_differ(tmp_path: Path) -> None:
    found = against(tmp_path, {"tokenizer_config.json": b'{"do_lower_case": 1}'})
    assert said(found) == ["tokenizer: tokenizer_config.json: do_lower_case true -> 1"]


def test_a_manifest_names_no_file_beside_the_archive(tmp_path: Path) -> None:
    archive = make(tmp_path, form="no-archive")
    (archive.parent / "secret.yaml").write_text("password: hunter2\n")
    told = json.loads((archive / "MAR-INF" / "MANIFEST.json").read_text())
    told["model"]["configFile"] = "../secret.yaml"
    (archive / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(told))
    with pytest.raises(InputError, match=r"names \.\./secret.yaml"):
        describe(archive)


def test_a_damaged_archive_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sound, damaged = make(tmp_path / "a"), make(tmp_path / "b")
    data = damaged.read_bytes()
    damaged.write_bytes(data.replace(HANDLER, HANDLER[::-1]))
    assert command.run(["diff", str(sound), str(damaged)]) == 2
    assert "handler.py" in capsys.readouterr().err
    assert command.run(["diff", str(sound), str(tmp_path / "none.mar")]) == 2


def test_random_damage_is_never_a_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for form, name in (("zip-store", "a.mar"), ("default", "b.mar"), ("tgz", "c.tar.gz")):
        sound = make(tmp_path / form, form=form)
        data = sound.read_bytes()
        for index in range(12):
            place = len(data) * index // 12
            damaged = tmp_path / name
            damaged.write_bytes(data[:place] + os.urandom(20) + data[place + 20 :])
            for line in (["inspect", str(damaged)], ["check", str(damaged)], ["diff", str(sound), str(damaged)]):
                assert command.run(line) in (0, 2, 5)
                assert "Traceback" not in capsys.readouterr().err

"""Which model a name means."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from pipeline import model_source
from pipeline.config import Overrides, legal_name, load
from pipeline.model_source import find

TEXT = "handler: {{mode: text_generation, model_name: {name}}}"

NAMES = [
    "gpt2",
    "distilbert/distilbert-base-uncased-finetuned-sst-2-english",
    "a.b-c_d/e.f",
    "0/1",
    "foo/bar/baz",
    "foo bar",
    "foo/",
    "/foo",
    "foo--bar",
    "foo..bar",
    "-foo",
    "foo-",
    ".foo",
    "foo.",
    "foo.git",
    "org/foo.git",
    "a" * 96,
    "a" * 97,
    "ümlaut",
    "foo@main",
    "foo:bar",
    "foo\\bar",
]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: name[:20])
def test_a_hub_id_is_what_the_hubs_own_client_takes(name):
    try:
        validate_repo_id(name)
        valid = True
    except HFValidationError:
        valid = False
    try:
        found = find(name, [Path()])
    except ValueError:
        assert not valid
    else:
        assert valid
        assert (found.kind, found.repo, found.path) == ("hub", name, None)


@pytest.fixture(autouse=True)
def models(folder: Path) -> None:
    for name in ("here", "configs/mine", "org/name", "deep/checkpoint-500"):
        (folder / name).mkdir(parents=True)
    (folder / "weights.bin").write_text("x")


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("here", "here"),
        ("./here", "here"),
        ("org/name", "org/name"),
        ("deep/../here/", "here"),
        ("deep/checkpoint-500", "deep/checkpoint-500"),
        (".", "."),
    ],
)
def test_a_folder_that_is_there_is_meant(folder, name, path):
    found = find(name, [Path()])
    assert (found.kind, found.name, found.repo) == ("folder", name, None)
    assert found.path == (folder / path).resolve()
    assert found.path.is_absolute()


def test_a_home_folder_is_found(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder / "deep"))
    assert find("~/checkpoint-500", [Path()]).path == folder / "deep/checkpoint-500"


def test_a_files_name_is_looked_up_beside_the_file_first_and_then_here(write, folder):
    (folder / "configs/here").mkdir()
    path = write(TEXT.format(name="here"), "configs/c.yaml")
    assert load(path).model.path == folder / "configs/here"
    assert load(path, Overrides(model="here")).model.path == folder / "here"
    assert load(write(TEXT.format(name="org/name"), "configs/d.yaml")).model.path == folder / "org/name"
    assert load(write(TEXT.format(name="mine"), "configs/e.yaml")).model.path == folder / "configs/mine"
    assert load(path, Overrides(model="mine")).model.kind == "hub"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("./heer", "no such folder: ./heer; did you mean here?"),
        ("~nobody-of-this-name/x", "~nobody-of-this-name/x cannot be looked at"),
        ("/no/such", "no such folder: /no/such"),
        ("deep/checkpoint-50/", "no such folder: deep/checkpoint-50/; did you mean deep/checkpoint-500?"),
        ("a/b/c", "a/b/c is neither a folder here nor a Hub id (NAME or ORGANISATION/NAME)"),
        ("my model", "my model is neither a folder here nor a Hub id"),
        ("weights.bin", "weights.bin is a file: name the folder that save_pretrained() wrote"),
        ("./weights.bin", "./weights.bin is a file"),
        ("C:\\models\\x", "no such folder: C:\\models\\x"),
        ("https://huggingface.co/org/name", "is an address: write its Hub id, org/name"),
        ("starter:seq_class", "no such starter: starter:seq_class; did you mean starter:seq_classification?"),
        ("starter:", "no such starter: starter:; there are seq_classification,"),
        ("starter:../x", "no such starter"),
        ("", "no name of a model"),
        ("  ", "no name of a model"),
        ("a\0b", "no name of a model"),
        ("a" * 5000, "no name of a model"),
        ("./" + "a" * 300, "cannot be looked at"),
    ],
    ids=lambda value: value[:24].replace("\0", "0"),
)  # fmt: skip
def test_a_name_that_means_nothing_says_why(name, said):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        find(name, [Path()])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_starter_is_a_folder_of_the_package():
    found = find("starter:text_generation", [Path()])
    assert (found.kind, found.path) == ("starter", model_source.STARTERS / "text_generation")


@pytest.mark.parametrize(
    ("name", "legal"),
    [
        ("distilbert-base-uncased-finetuned-sst-2-english", "distilbert-base-uncased-finetuned-sst-2-english"),
        ("my model, final*", "my-model-final"),
        (".hidden", "hidden"),
        ("checkpoint-500", "checkpoint-500"),
        ("模型", "model"),
        ("", "model"),
        ("a" * 300, "a" * 200),
    ],
)
def test_an_archive_name_is_made_legal(name, legal):
    assert legal_name(name) == legal


def test_made_names_are_those_that_the_archiver_takes():
    for name in ("a b", "--x", "_y", "ä", "x.", "1_Pooling", "a,b*c[d]"):
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_\-.]*", legal_name(name))


def test_the_archive_is_named_for_the_last_part_of_the_model(build):
    names = {
        "distilbert/distilbert-base-cased-distilled-squad": "distilbert-base-cased-distilled-squad",
        "starter:text_generation": "text_generation",
        "deep/checkpoint-500": "checkpoint-500",
        "deep/checkpoint-500/": "checkpoint-500",
    }
    for name, archive in names.items():
        assert build(TEXT.format(name="gpt2"), model=name).archive.name == archive


@pytest.mark.parametrize(
    ("name", "kind", "short"),
    [
        ("s3://bucket/x", "url", "x"),
        ("gs://bucket/a/b/", "url", "b"),
        ("az://container/a", "url", "a"),
        ("hf://org/name", "hub", "name"),
        ("hf://org/name@v1", "hub", "name"),
        ("models:/churn/3", "mlflow", "churn"),
        ("models:/churn@champion", "mlflow", "churn"),
    ],
)
def test_an_address_tells_its_kind_and_gives_the_archive_its_name(name, kind, short):
    found = find(name, [Path()])
    assert (found.kind, found.short_name) == (kind, short)


def test_credentials_in_an_address_are_refused_and_not_repeated():
    with pytest.raises(ValueError, match=r"credential|secret|password") as caught:
        find("s3://me:s3cr3t@bucket/x", [Path()])
    assert "s3cr3t" not in str(caught.value)

"""Which model a name means."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from mar_pipeline.config.build_config import Overrides, legal_name, load, task_of
from mar_pipeline.errors import InputError
from mar_pipeline.model import address
from mar_pipeline.model.address import find, without_secrets

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


@pytest.mark.usefixtures("folder")
def test_an_error_that_asks_ends_with_its_question_mark():
    with pytest.raises(InputError) as caught:
        task_of("./heer", None, lambda *_: None)
    assert caught.value.what == "--model: no such folder: ./heer; did you mean here?"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("./heer", "no such folder: ./heer; did you mean here?"),
        ("~nobody-of-this-name/x", "~nobody-of-this-name/x cannot be accessed"),
        ("/no/such", "no such folder: /no/such"),
        ("deep/checkpoint-50/", "no such folder: deep/checkpoint-50/; did you mean deep/checkpoint-500?"),
        ("a/b/c", "a/b/c is neither a folder here nor a Hub id (NAME or ORGANISATION/NAME)"),
        ("my model", "my model is neither a folder here nor a Hub id"),
        ("weights.bin", "weights.bin is a file: name the folder that save_pretrained() wrote"),
        ("./weights.bin", "./weights.bin is a file"),
        ("C:\\models\\x", "no such folder: C:\\models\\x"),
        ("https://huggingface.co/org/name", "is an address: write its Hub id, org/name"),
        ("ftp://host/x", "ftp://host/x is an address: give a folder on this machine, or a Hub id"),
        ("https://me:hunter2@host/x", "https://***@host/x is an address"),
        ("s3://", "lacks a bucket: write s3://BUCKET/PATH"),
        ("s3:///x", "lacks a bucket"),
        ("s3://bucket/../x", "is not an address of a checkpoint"),
        ("s3://bucket//x", "is not an address of a checkpoint"),
        ("s3://bucket/x#y", "is not an address of a checkpoint"),
        ("s3://bucket/a::zip://x", "is not an address of a checkpoint"),
        ("hf://datasets/org/name", "is not a model on the Hub: write hf://ORGANISATION/NAME[@REVISION]"),
        ("hf://models/org/name", "is not a model on the Hub"),
        ("hf://org/name/sub/folder", "is not a model on the Hub"),
        ("hf://org/na--me", "is not a model on the Hub"),
        ("file:///no/such", "no such folder: file:///no/such"),
        ("file://host/x", "is on another machine: write file:///PATH"),
        ("file://weights.bin", "is on another machine"),
        ("models:/", "does not name a registered model: write models:/NAME/VERSION or models:/NAME@ALIAS"),
        ("models:/name", "does not name a registered model"),
        ("models:/na'me/1", "does not name a registered model"),
        ("runs:/abc/model", "`mlflow.register_model` registers a run's model"),
        ("starter:seq_class", "no such starter: starter:seq_class; did you mean starter:seq_classification?"),
        ("starter:", "no such starter: starter:; there are seq_classification,"),
        ("starter:../x", "no such starter"),
        ("", "not a name of a model"),
        ("  ", "not a name of a model"),
        ("a\0b", "not a name of a model"),
        ("a" * 5000, "not a name of a model"),
        ("./" + "a" * 300, "cannot be accessed"),
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
    assert (found.kind, found.path) == ("starter", address.STARTERS / "text_generation")


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
        "deep/checkpoint-500": "deep-checkpoint-500",
        "deep/checkpoint-500/": "deep-checkpoint-500",
    }
    for name, archive in names.items():
        assert build(TEXT.format(name="gpt2"), model=name).archive.name == archive


@pytest.mark.parametrize(
    ("name", "url", "short"),
    [
        ("s3://bucket/a/bert", "s3://bucket/a/bert", "bert"),
        ("S3://bucket/a/bert//", "s3://bucket/a/bert", "bert"),
        ("s3://bucket", "s3://bucket", "bucket"),
        ("s3://arn:aws:s3:eu-west-1:1:accesspoint/a/bert", "s3://arn:aws:s3:eu-west-1:1:accesspoint/a/bert", "bert"),
        ("gs://bucket/b@rt", "gs://bucket/b@rt", "b@rt"),
        ("gcs://bucket/bert", "gcs://bucket/bert", "bert"),
        ("az://container/bert", "az://container/bert", "bert"),
        ("abfs://c@account.dfs.core.windows.net/b", "abfs://c@account.dfs.core.windows.net/b", "b"),
    ],
)  # fmt: skip
def test_an_address_in_an_object_store_is_taken(name, url, short):
    found = find(name, [Path()])
    assert (found.kind, found.name, found.url, found.short_name) == ("url", name, url, short)
    assert (found.path, found.repo, found.revision) == (None, None, None)


@pytest.mark.parametrize(
    ("name", "repo", "revision"),
    [
        ("hf://gpt2", "gpt2", None),
        ("hf://org/name", "org/name", None),
        ("hf://org/name/", "org/name", None),
        ("hf://org/name@v1.0", "org/name", "v1.0"),
        ("hf://org/name@refs%2Fpr%2F1", "org/name", "refs/pr/1"),
        ("hf://org/name@refs/pr/1", "org/name", "refs/pr/1"),
    ],
)
def test_an_address_of_the_hub_is_its_id_and_revision(name, repo, revision):
    found = find(name, [Path()])
    assert (found.kind, found.repo, found.revision) == ("hub", repo, revision)
    assert found.short_name == repo.rpartition("/")[2]


def test_a_file_address_is_a_folder(folder):
    (folder / "with space").mkdir()
    for name, path in (
        (f"file://{folder}/here", "here"),
        (f"file://localhost{folder}/here/", "here"),
        (f"file://{folder}/with%20space", "with space"),
        (f"file://{folder}/with space", "with space"),
    ):
        found = find(name, [Path()])
        assert (found.kind, found.path) == ("folder", folder / path)
    with pytest.raises(ValueError, match="no such folder"):
        find(f"file://{folder}/here", [])  # what comes from elsewhere says nothing of this machine's folders


@pytest.mark.parametrize("name", ["models:/tiny/3", "models:/tiny@champion", "models:/tiny/latest", "models://tiny/3"])
def test_a_registered_model_is_called_by_its_name(name):
    found = find(name, [Path()])
    assert (found.kind, found.name, found.short_name) == ("mlflow", name, "tiny")


def refusal(work) -> str:
    with pytest.raises((ValueError, InputError)) as caught:
        work()
    return str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "s3://AKIA123:hunter2@bucket/x",
        "s3://AKIA123:hunt/er2@bucket/x",
        "s3://hunter2@bucket/x",
        "s3://AKIA123:hunter2",
        "s3://AKIA123:hunter2/x",
        "s3://bucket/x?AWSAccessKeyId=AKIA123&Signature=hunter2",
        "az://container/x?sv=1&sig=hunter2",
        "abfs://me:hunter2@account.dfs.core.windows.net/x",
        "gs://bucket/x?X-Goog-Signature=hunter2",
        "https://me:hunter2@host/x?token=hunter2",
        "hf://me:hunter2@org/name",
        "file://me:hunter2@host/x",
    ],
)
def test_credentials_in_an_address_are_refused_and_not_repeated(write, name):
    path = write(TEXT.format(name="gpt2"))
    for said in (
        refusal(lambda: find(name, [Path()])),
        refusal(lambda: load(path, Overrides(model=name))),
        refusal(lambda: load(path, Overrides(settings=(f"handler.model_name={name}",)))),
        refusal(lambda: load(write(TEXT.format(name=f"'{name}'"), "d.yaml"))),
        refusal(lambda: load(path, Overrides(settings=(f"handler.base_model={name}",)))),
    ):
        assert "hunt" not in said
        assert "er2" not in said
        assert "AKIA" not in said


def test_what_is_no_login_is_shown():
    for text in ("hf://gpt2@main", "abfs://c@account.dfs.core.windows.net/x", "s3://bucket/a@b, and s3://c/d"):
        assert without_secrets(text) == text
    assert without_secrets("see s3://a:b@c/d?e=f now") == "see s3://***@c/d?*** now"


def test_a_revision_in_an_address_is_the_configs(write, build):
    named = "hf://org/name@v1"
    assert build(TEXT.format(name="gpt2"), model=named).revision == "v1"
    assert build(TEXT.format(name="gpt2"), model=named, revision="v1").revision == "v1"
    for name, said in (
        (named, "differs from the revision in hf://org/name@v1"),
        ("s3://b/x", "s3://b/x is an address in an object store"),
        ("models:/x/1", "models:/x/1 is a registered model"),
    ):
        path = write(TEXT.format(name="gpt2"))
        assert said in refusal(lambda path=path, name=name: load(path, Overrides(model=name, revision="v2")))

"""config.properties, read the way its readers read it."""

from __future__ import annotations

import json
import re

import pytest

from mar_pipeline.errors import InputError
from mar_pipeline.serving.properties import (
    Ports,
    config_properties,
    listeners,
    loaded_archives,
    ports_of,
    read_properties,
    served_name,
)

ARCHIVES = ["sentiment.mar", "entities-2.tar.gz", "answers"]


def test_the_defaults_are_safe() -> None:
    found = read_properties(config_properties(ARCHIVES))
    assert {host for host, _ in listeners(found).values()} == {"127.0.0.1"}
    assert found["disable_token_authorization"] == "false"
    assert found["enable_model_api"] == "false"
    assert found["install_py_dep_per_model"] == "false"
    assert found["enable_envvars_config"] == "false"
    assert found["load_models"] == "sentiment=sentiment.mar,entities-2=entities-2.tar.gz,answers=answers"


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("file:///mnt/models/model-store/sentiment.mar", True),
        ("file:///home/me/build/model-store/entities-2.tar.gz", True),
        ("file:///mnt/models/model-store/other.mar", False),
        ("file:///mnt/models/model-store/sentimentXmar", False),
        ("file:///etc/passwd", False),
        ("https://example.com/model-store/sentiment.mar", False),
        # A bare name is looked up in the store; if it matched, TorchServe would try to download it.
        ("sentiment.mar", False),
    ],
)
def test_no_url_but_the_stores_own_archives_is_allowed(url: str, allowed: bool) -> None:
    patterns = read_properties(config_properties(ARCHIVES))["allowed_urls"].split(",")
    # ArchiveUtils.validateURL: the whole URL, whatever its case, against each.
    assert any(re.fullmatch(pattern, url, re.IGNORECASE) for pattern in patterns) is allowed


def test_an_empty_store_allows_nothing() -> None:
    found = read_properties(config_properties([]))
    assert not re.fullmatch(found["allowed_urls"], "file:///x")
    assert loaded_archives(found) == []


def test_kserves_wrapper_finds_the_names_and_a_free_port_and_torchserve_no_snapshot() -> None:
    text = config_properties(ARCHIVES)
    # As kserve_wrapper/__main__.py splits it: line by line, at the first "=".
    lines = [line.split("=", 1) for line in text.splitlines() if not line.startswith("#") and "=" in line]
    wrapper = {name.strip(): value.strip() for name, value in lines}
    assert list(json.loads(wrapper["model_snapshot"])["models"]) == ["sentiment", "entities-2", "answers"]
    # The wrapper itself listens on 8080 and 8081 of the same container.
    assert {wrapper["inference_address"], wrapper["management_address"]} == {
        "http://127.0.0.1:8085",
        "http://127.0.0.1:8086",
    }
    assert "model_snapshot" not in read_properties(text)


def test_the_tree_can_be_moved() -> None:
    found = read_properties(config_properties(ARCHIVES))
    assert "model_store" not in found
    assert not any(value.startswith("/") for value in found.values())


def test_a_setting_can_be_replaced_and_added() -> None:
    found = read_properties(config_properties(["a.mar"], settings={"job_queue_size": "7", "vmargs": "-Xmx1g"}))
    assert found["job_queue_size"] == "7"
    assert found["vmargs"] == "-Xmx1g"


def test_ports_are_read_back() -> None:
    ports = Ports(inference=1, management=2, metrics=3, grpc_inference=4, grpc_management=5)
    assert ports_of(read_properties(config_properties(["a.mar"], ports=ports))) == ports


def test_two_archives_of_one_name_are_refused() -> None:
    with pytest.raises(InputError, match=r"a\.mar and a\.tar\.gz"):
        config_properties(["a.mar", "a.tar.gz"])


@pytest.mark.parametrize("name", ["a b.mar", "a,b.mar", "a=b.mar", "-a.mar", ".mar"])
def test_a_name_that_load_models_would_misread_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="is not a model name"):
        config_properties([name])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a=1\nb:2\nc 3\nd", {"a": "1", "b": "2", "c": "3", "d": ""}),
        ("  # no\n ! no\na = 1 ", {"a": "1 "}),
        ("a=1,\\\n   2", {"a": "1,2"}),
        ("a=x\\\\\nb=1", {"a": "x\\", "b": "1"}),
        ("a\\=b=\\u0041\\t.", {"a=b": "A\t."}),
        ("a=1\na=2", {"a": "2"}),
        ("a=\\ud83d\\ude00", {"a": "\U0001f600"}),
        ("a=1\rb=2\r\nc=x\x0by\u2028z\x85", {"a": "1", "b": "2", "c": "x\x0by\u2028z\x85"}),
        ("\fa\f=\f1", {"a": "1"}),
    ],
    ids=["separators", "comments", "continued", "backslash", "escapes", "twice", "two halves", "lines", "form feeds"],
)
def test_properties_are_read_as_java_does(text: str, found: dict[str, str]) -> None:
    assert read_properties(text) == found


def test_a_number_that_java_would_not_read_is_refused() -> None:
    with pytest.raises(InputError, match=r"cannot be read: \\uNotHe? is not"):
        read_properties("a=C:\\uNotHere")


def test_all_stands_for_whatever_is_in_the_store() -> None:
    assert loaded_archives({"load_models": "all"}) is None
    assert loaded_archives({"load_models": "a.mar, b=b.tar.gz,"}) == ["a.mar", "b.tar.gz"]


def test_torchserves_own_defaults_hold_where_nothing_is_said() -> None:
    assert ports_of({}).inference == 8080
    assert listeners({"inference_address": "http://0.0.0.0:9000"})["inference_address"] == ("0.0.0.0", 9000)
    with pytest.raises(InputError, match="inference_address=nonsense"):
        listeners({"inference_address": "nonsense"})


@pytest.mark.parametrize(("file", "name"), [("a.mar", "a"), ("a.b.tar.gz", "a.b"), ("folder", "folder")])
def test_an_archive_is_served_under_its_files_name(file: str, name: str) -> None:
    assert served_name(file) == name

"""The generated reference is what the code is, and the schema for editors takes what the config reader takes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from docs.generate import commands, facts, markdown, pages, project, settings
from handlers.protocol import schema as schema_of_requests
from mar_pipeline import errors
from mar_pipeline.config import build_config
from mar_pipeline.config import settings as config
from mar_pipeline.errors import InputError
from mar_pipeline.host import environment

ROOT = markdown.ROOT
SHIPPED = sorted(ROOT.glob("configs/**/*.yaml"))


def reference(name: str) -> str:
    return (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")


def test_nothing_that_is_generated_is_stale() -> None:
    assert pages.stale() == [], "run `make docs-reference`"


def test_a_page_that_was_edited_by_hand_is_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "reference" / "limits.md"
    page.parent.mkdir()
    page.write_text(reference("limits.md").replace("200,000", "300,000"), encoding="utf-8")
    monkeypatch.setattr(pages, "DOCS", tmp_path)
    monkeypatch.setattr(pages, "PARTS", {"reference/limits.md": pages.PARTS["reference/limits.md"]})
    assert pages.stale() == [page]
    assert pages.write() == [page]
    assert page.read_text(encoding="utf-8") == reference("limits.md")


def test_a_page_without_its_markers_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="generated: limits"):
        markdown.filled("# Limits\n", {"limits": "a table"})


def test_a_setting_without_a_docstring_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class More(config.ConfigFile):
        documented: int = 1
        """A new setting."""
        bare: int = 1

    monkeypatch.setattr(project.config, "ConfigFile", More)
    with pytest.raises(ValueError, match="bare has no docstring"):
        settings.descriptions()


def test_the_texts_on_the_page_and_in_the_schema_are_the_docstrings() -> None:
    page, schema = reference("settings.md"), json.loads(pages.SCHEMA.read_text(encoding="utf-8"))
    for key, text in settings.descriptions().items():
        part = settings._at(schema, key)
        assert part["description"] == text
        if "$ref" not in part and not any("$ref" in one for one in part.get("anyOf", ())):
            assert f"| `{key}` |" in page
            assert markdown.cell(text) in page
    assert "The most requests in one call of the handler." in page
    assert f"at most {config.DEFAULT_LENGTH_LIMIT}." in settings.descriptions()["handler.max_length"]


@pytest.mark.parametrize(
    "key",
    [
        "batchSize",
        "handler.max_length",
        "handler.generation.top_p",
        "hardware.python",
        "archive.format",
        "pt2.compile.mode",
        "verify.tolerance",
        "torchrun.nproc-per-node",
    ],
)
def test_the_page_has_a_setting_of_each_section(key: str) -> None:
    assert f"| `{key}` |" in reference("settings.md")


def test_every_command_and_option_of_the_help_is_on_the_page() -> None:
    page = reference("commands.md")
    names = [name for name, _ in commands.walk()]
    assert {"mar build", "mar lock", "mar cache gc"} <= set(names)
    for name, command in commands.walk():
        section = page.partition(f"## {name}\n")[2].partition("\n## ")[0]
        assert [one for one in commands.options(command) - {"--help"} if f"`{one}`" not in section] == []


def test_the_exit_codes_are_those_that_scripts_rely_on() -> None:
    rows = [line.split(" | ")[0] for line in facts.exit_codes().splitlines()[2:]]
    assert rows == ["| 0", "| 1", "| 2", "| 3", "| 4", "| 5", "| 130"]
    assert (errors.InputError.exit_code, errors.StageError.exit_code, errors.MismatchError.exit_code) == (2, 3, 4)


def test_every_variable_that_passes_is_on_the_page() -> None:
    page = reference("environment-variables.md")
    assert [name for name in environment.NAMES if f"`{name}`" not in page] == []
    assert [prefix for prefix in environment.PREFIXES if f"`{prefix}*`" not in page] == []
    assert environment.PASS in page


READ = re.compile(r"""(?:environ(?:ment)?(?:\.get\(|\.setdefault\(|\[)|envvar=)\s*["']([A-Z][A-Z0-9_]+)["']""")
"""How the source reads an environment variable."""

OURS_TO_SET = {"GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"}
"""Variables that the command sets for a library, and nobody else has to."""


def test_every_variable_that_the_command_reads_is_on_the_page() -> None:
    page = reference("environment-variables.md")
    sources = [path.read_text(encoding="utf-8") for path in ROOT.glob("pipeline/**/*.py")]
    names = {name for text in sources for name in READ.findall(text)}
    assert {"MAR_CACHE", "SOURCE_DATE_EPOCH", "JAVA_HOME", "HF_ENDPOINT"} <= names
    assert [name for name in sorted(names - OURS_TO_SET) if name not in page] == []


@pytest.mark.parametrize("task", schema_of_requests.INPUTS)
def test_every_field_of_a_request_and_of_its_answer_is_on_the_page(task: str) -> None:
    page = reference("requests.md")
    whole = schema_of_requests.schema(task)
    fields = {name for part in ("request", "response", "explain", "explanation") for name in properties(whole[part])}
    inner = {
        "token",
        "words",
        "importance",
        "field",
        "model_name",
        "outputs",
        "id",
    }  # of lists within explanations, and KServe's
    assert fields >= {"error"}
    assert [name for name in sorted(fields - inner) if f'"{name}"' not in page and f"`{name}`" not in page] == []


def properties(part: Any) -> set[str]:
    """The names of all properties in a schema."""
    if isinstance(part, list):
        return {name for one in part for name in properties(one)}
    if not isinstance(part, dict):
        return set()
    return set(part.get("properties", {})) | {name for one in part.values() for name in properties(one)}


@pytest.fixture(scope="module")
def schema() -> Any:
    jsonschema = pytest.importorskip("jsonschema")
    found = json.loads(pages.SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(found)
    return jsonschema.Draft202012Validator(found)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_shipped_config_names_the_schema_and_fits_it(path: Path, schema: Any) -> None:
    text = path.read_text(encoding="utf-8")
    first = text.splitlines()[0]
    assert first.startswith("# yaml-language-server: $schema=")
    assert (path.parent / first.partition("=")[2]).resolve() == pages.SCHEMA
    assert list(schema.iter_errors(yaml.safe_load(text))) == []


HEAD = "handler:\n  model_name: starter:seq_classification\n  mode: sequence_classification\n"
TAKEN = {
    "least": HEAD,
    "another name of a task": "handler: {model_name: org/name, task: token_classification}",
    "labels as a list": HEAD + "  labels: [bad, good]\n",
    "labels as a mapping": HEAD + "  labels: {0: bad, 1: good}\n",
    "a number as text": HEAD + "verify: {tolerance: '1e-3'}\n",
    "a number that YAML 1.1 makes text of": HEAD + "verify: {tolerance: 1e-3}\n",
    "samples of both kinds": HEAD + "verify: {samples: [a text, {text: another}]}\n",
    "several lengths": HEAD + "  hardware: neuron\n  max_length: [64, 128]\n",
    "options as text": HEAD + "  hardware: neuronx\nhardware: {compiler_args: --optlevel 2}\n",
    "nothing after a key": HEAD + "  top_k:\n",
    "a section of TorchServe": HEAD + "torchrun: {nproc-per-node: 2}\n",
}
REFUSED = {
    "a typo": HEAD + "  max_lenght: 9\n",
    "a typo at the top": HEAD + "batchsize: 4\n",
    "text for a number": HEAD + "  max_length: long\n",
    "a number out of range": HEAD + "verify: {tolerance: 2}\n",
    "nothing to do": HEAD + "batchSize: 0\n",
    "no such task": "handler: {model_name: org/name, mode: translation}",
    "no such hardware": HEAD + "  hardware: tpu\n",
    "no such format": HEAD + "archive: {format: rar}\n",
    "an empty list of samples": HEAD + "verify: {samples: []}\n",
    "a quoted boolean": HEAD + "  allow_pickle: 'yes'\n",
}


def reads(text: str, folder: Path) -> bool:
    """Whether `mar build` takes that config."""
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    try:
        build_config.load(path)
    except InputError:
        return False
    return True


@pytest.mark.parametrize("text", TAKEN.values(), ids=TAKEN)
def test_the_schema_takes_what_a_build_takes(text: str, schema: Any, tmp_path: Path) -> None:
    assert reads(text, tmp_path)
    assert [error.message for error in schema.iter_errors(yaml.safe_load(text))] == []


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
def test_the_schema_refuses_what_a_build_refuses(text: str, schema: Any, tmp_path: Path) -> None:
    assert not reads(text, tmp_path)
    assert not schema.is_valid(yaml.safe_load(text))


def test_every_key_has_a_description_in_the_schema() -> None:
    made = json.loads(pages.SCHEMA.read_text(encoding="utf-8"))
    parts = [made, *made["$defs"].values()]
    assert [
        name for part in parts for name, field in part.get("properties", {}).items() if not field.get("description")
    ] == []

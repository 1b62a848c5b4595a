"""Archives of other tools: `mar run` and `mar explain` answer as TorchServe's own worker code does."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mar_pipeline.portable.context import LocalContext, RequestProcessor, Uncounted
from tests.serve.conftest import pack
from tests.support import ROOT
from tests.support.mar import Mar

pytest.importorskip("ts")
pytestmark = pytest.mark.slow

BASE = """
import os, json
from ts.torch_handler.base_handler import BaseHandler

class {name}(BaseHandler):
    def initialize(self, context):
        self.folder = context.system_properties["model_dir"]

    def preprocess(self, data):
        return [row.get("data") or row.get("body") for row in data]

    def inference(self, texts):
        return [len(text) for text in texts]

    def postprocess(self, lengths):
        return [{{"length": length}} for length in lengths]
"""
PLAIN = """
class {name}:
    def initialize(self, context):
        pass

    def handle(self, data, context):
        {body}
"""
LISTED = """
        from ts.metrics.dimension import Dimension
        from ts.metrics.metric_type_enum import MetricTypes
        metrics = context.metrics
        metrics.add_metric("mine", 1, "count")
        metrics.add_metric("other", 2.5, "ms", idx=0, dimensions=[Dimension("a", "b")], metric_type=MetricTypes.GAUGE)
        metrics.add_counter("counted", 1, None)
        metrics.add_time("timed", 3, None, "s")
        metrics.add_size("sized", 3, unit="GB")
        metrics.add_percent("part", 50)
        metrics.add_error("failed", 1)
        own = metrics.add_metric_to_cache("own", "count", ["Level"], MetricTypes.HISTOGRAM)
        own.add_or_update(5, ["Model"])
        return [metrics.get_metric("own", MetricTypes.HISTOGRAM).unit]
"""
CONTEXT = """
        context.set_response_header(0, "X-Mine", "yes")
        context.set_response_content_type(0, "text/x-mine")
        context.set_response_status(201, "Created", 0)
        properties = dict(context.system_properties)
        del properties["model_dir"]
        return [{
            "manifest": context.manifest, "properties": properties, "name": context.model_name,
            "config": context.model_yaml_config, "id": context.get_request_id(0), "none": context.get_request_id(7),
            "ids": context.request_ids, "headers": context.get_all_request_header(0),
            "header": context.get_request_header(0, "Content-Type"), "also": context.get_request_header(0, "explain"),
            "status": context.get_response_status(0), "type": context.get_response_content_type(0),
            "answered": context.get_response_headers(0), "sequence": context.get_sequence_id(0),
            "processor": context.request_processor[0].get_request_property("body"),
            "private": context._request_processor[0].get_request_properties(),
        }]
"""
STREAM = """
        from ts.handler_utils.utils import send_intermediate_predict_response
        for part in ("a ", "b "):
            send_intermediate_predict_response([part], context.request_ids, "part", 200, context)
        return ["c"]
"""


def plain(name: str, body: str) -> str:
    return PLAIN.format(name=name, body=body.strip())


JSON_BODY = {"text": "the room"}
GOOD: dict[str, tuple[str, str, Any]] = {
    "based": (BASE.format(name="Based"), "based.py", JSON_BODY),
    "function": ("def serve(data, context):\n    return None if data is None else [[1, 2]]\n", "function:serve", {}),
    "module": (
        "state = []\ndef handle(data, context):\n    if data is None:\n        state.append(context.model_name)\n"
        "        return\n    return [state]\n",
        "module.py",
        {},
    ),
    "nested": (
        "from parts.inner.names import NAME\n" + plain("Nested", "return [NAME + open('extra.txt').read()]"),
        "folder/nested.py",
        {},
    ),
    "measured": (plain("Measured", LISTED), "measured.py", {}),
    "contextual": (plain("Contextual", CONTEXT), "contextual.py", JSON_BODY),
    "streaming": (plain("Streaming", STREAM), "streaming.py", {}),
    "bytesin": (plain("Bytesin", 'return [data[0]["body"].decode("utf-8").upper()]'), "bytesin.py", "plain täxt"),
    "bytesout": (plain("Bytesout", "return ['{\"a\": 1}'.encode()]"), "bytesout.py", {}),
    "textout": (plain("Textout", "return ['fine']"), "textout.py", {}),
    "keyed": (plain("Keyed", "return [{1: (2, 3), None: True}]"), "keyed.py", {}),
    "refusing": (
        plain("Refusing", "context.set_all_response_status(418, 'Teapot')\n        return [{'error': 'no'}]"),
        "refusing.py",
        {},
    ),
    "silent": (plain("Silent", "return [None]"), "silent.py", {}),
}  # fmt: skip
BAD: dict[str, tuple[str, str, str]] = {
    "raising": (plain("Raising", "raise KeyError('no')"), "raising.py", "KeyError: 'no' (raising.py:7)"),
    "memory": (plain("Memory", "raise MemoryError('much')"), "memory.py", "507"),
    "dictionary": (plain("Dictionary", "return {'a': 1}"), "dictionary.py", "returned a dict"),
    "several": (plain("Several", "return [1, 2]"), "several.py", "2 replies to 1 request"),
    "unsendable": (plain("Unsendable", "return [{1, 2}]"), "unsendable.py", "is not JSON"),
    "predicting": (
        "from ts.utils.util import PredictionException\n"
        + plain("Predicting", "raise PredictionException('too long', 413)"),
        "predicting.py",
        "refused the request (413): too long",
    ),
}  # fmt: skip


def lay_out(root: Path, name: str, code: str, handler: str) -> Path:
    """An unpacked archive as torch-model-archiver's, with a package and a file beside the handler."""
    folder = root / name
    (folder / "MAR-INF").mkdir(parents=True)
    (folder / "parts" / "inner").mkdir(parents=True)
    (folder / "parts" / "inner" / "names.py").write_text("NAME = 'nested '\n")
    (folder / "extra.txt").write_text("file")
    (folder / f"{name}.py").write_text(code)
    (folder / "model-config.yaml").write_text("minWorkers: 1\nhandler:\n  mine: [1, 2]\n")
    model = {"modelName": name, "handler": handler, "modelVersion": "1.0", "configFile": "model-config.yaml"}
    manifest = {"createdOn": "today", "runtime": "python", "model": model, "archiverVersion": "0.12.0"}
    (folder / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
    return folder


def asked(kind: str, jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What `tests/support/worker.py` says, in a process of its own."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "support" / "worker.py"), kind],
        input=json.dumps(jobs),
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    return list(json.loads(done.stdout))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Archive -> what TorchServe's worker answers, and what the emulator does."""
    root = tmp_path_factory.mktemp("foreign")
    jobs = [
        {"folder": str(lay_out(root, name, code, handler)), "body": body}
        for name, (code, handler, body) in {**GOOD, **{name: (*bad[:2], {}) for name, bad in BAD.items()}}.items()
    ]
    return dict(zip([*GOOD, *BAD], zip(asked("service", jobs), asked("emulator", jobs), strict=True), strict=True))


@pytest.mark.parametrize("name", GOOD)
def test_an_answer_is_the_one_that_torchserve_gives(both: Any, name: str) -> None:
    wanted, got = both[name]
    assert "error" not in wanted
    assert wanted["status"] < 500
    assert got == wanted


@pytest.mark.parametrize("name", BAD)
def test_a_failure_is_an_error_that_names_the_handler_and_the_cause(both: Any, name: str) -> None:
    wanted, got = both[name]
    assert wanted["status"] in (413, 503, 507)
    assert BAD[name][2] in got["error"] or (name == "memory" and "MemoryError: much" in got["error"])
    assert "handler" in got["error"]


MODEL = """
import torch

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.EmbeddingBag(20, 8)
        self.fc = torch.nn.Linear(8, 2)

    def forward(self, text, offsets):
        return self.fc(self.embedding(text, offsets))
"""


@pytest.mark.long
def test_a_built_in_handler_answers_and_explains_as_in_torchserve(tmp_path: Path) -> None:
    pytest.importorskip("captum")
    import torch

    folder = lay_out(tmp_path, "builtin", MODEL, "text_classifier")
    scope: dict[str, Any] = {}
    exec(MODEL, scope)
    torch.manual_seed(0)
    torch.save(scope["Model"]().state_dict(), folder / "weights.pt")
    words = ["the", "room", "was", "the room", "room was"]
    torch.save({word: index for index, word in enumerate(words)}, folder / "source_vocab.pt")
    (folder / "index_to_name.json").write_text('{"0": "bad", "1": "good"}')
    manifest = json.loads((folder / "MAR-INF" / "MANIFEST.json").read_text())
    manifest["model"] |= {"modelFile": "builtin.py", "serializedFile": "weights.pt"}
    (folder / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
    jobs = [{"folder": str(folder), "body": "The room was", "explain": explain} for explain in (False, True)]
    answers = asked("service", jobs)
    assert answers[0]["reply"].keys() == {"bad", "good"}
    assert answers[1]["reply"].keys() == {"importances", "words"}
    assert asked("emulator", jobs) == answers
    refused, _ = asked("alone", jobs)
    assert "TorchServe's own text_classifier" in refused["error"]


def test_without_torchserve_a_handler_of_its_own_answers_all_the_same(tmp_path: Path) -> None:
    body = """
        context.metrics.add_counter("a", 1)
        context.metrics.add_metric_to_cache("b", "ms").add_or_update(5, [])
        return [context.get_request_header(0, "Content-Type")]
    """
    folder = lay_out(tmp_path, "lonely", plain("Lonely", body), "lonely.py")
    (answer,) = asked("alone", [{"folder": str(folder), "body": {}}])
    assert answer == {"status": 200, "type": "", "reply": "application/json"}


def test_the_context_has_every_method_of_torchserves_with_its_parameters() -> None:
    from ts import context

    for theirs, ours in ((context.Context, LocalContext), (context.RequestProcessor, RequestProcessor)):
        for name, member in inspect.getmembers(theirs):
            if not name.startswith("_") and inspect.isfunction(member):
                parameters = list(inspect.signature(member).parameters.values())
                own = list(inspect.signature(getattr(ours, name)).parameters.values())
                assert [(p.name, p.default) for p in own] == [(p.name, p.default) for p in parameters], name


def test_metrics_without_torchserve_take_the_calls_of_its_metrics() -> None:
    from ts.metrics.caching_metric import CachingMetric
    from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl

    metrics = Uncounted()
    for kind in (MetricsCacheYamlImpl, CachingMetric):
        for name, _ in inspect.getmembers(kind, inspect.isfunction):
            if name.startswith("add_") or name in ("get_metric", "set_request_ids", "update"):
                assert getattr(metrics, name)("a", 1) is metrics
    with pytest.raises(AttributeError, match="add_nonsense"):
        metrics.add_nonsense("a", 1)


@pytest.fixture(scope="module")
def mar(tmp_path_factory: pytest.TempPathFactory) -> Mar:
    return Mar(tmp_path_factory.mktemp("mar"))


@pytest.mark.parametrize("kind", ["default", "zip-store", "tgz", "no-archive"])
def test_mar_run_answers_in_every_format(mar: Mar, tmp_path: Path, kind: str) -> None:
    archive = pack(tmp_path, "based", BASE.format(name="Based"), kind)
    done = mar("run", archive, "--input", '"the room"', "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"length": 8}), done.stderr


def test_a_handler_that_reads_bytes_alone_is_asked_with_bytes(mar: Mar, tmp_path: Path) -> None:
    code = "import json\n" + plain("Raw", 'return [json.loads(data[0]["body"].decode())["text"]]')
    done = mar("run", pack(tmp_path, "raw", code), "--input", json.dumps(JSON_BODY), "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, "the room"), done.stderr
    assert "without Content-Type: application/json" in done.stderr


EXPLAINING = BASE.format(name="Explaining") + """
    def get_insights(self, prepared, inputs, target):
        return [{"words": inputs["text"].split(), "target": target}]
"""  # fmt: skip


def test_mar_explain_asks_a_handler_for_its_explanation(mar: Mar, tmp_path: Path) -> None:
    archive = pack(tmp_path, "explaining", EXPLAINING)
    done = mar("explain", archive, "--input", json.dumps(JSON_BODY), "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"words": ["the", "room"], "target": 0}), done.stderr
    page = mar("explain", archive, "--input", "a", "--html", tmp_path / "page.html")
    assert (page.returncode, (tmp_path / "page.html").exists()) == (2, False)
    assert "another tool" in page.stderr


@pytest.mark.parametrize(
    ("words", "code", "handler", "said"),
    [
        (["explain"], BASE.format(name="Wrong"), None, "does not explain its answers: it has no get_insights"),
        (
            ["run"],
            "import surely_not_installed\n" + plain("Wrong", "pass"),
            None,
            "No module named 'surely_not_installed'",
        ),
        (["run"], plain("Wrong", "raise ValueError('seven\\nlines')"), None, "ValueError: seven (wrong.py:7)"),
        (["run"], "", "text_classifier", "TorchServe's own handler text_classifier"),
        (["run"], "", "no_such_handler", "no_such_handler, which is neither a module in it nor one of TorchServe's"),
        (["run"], "x = ", None, "SyntaxError"),
        (["run"], "import sys\nsys.exit(3)", None, "SystemExit"),
    ],
)
def test_what_cannot_answer_is_refused_by_name(
    mar: Mar, tmp_path: Path, words: list[str], code: str, handler: str | None, said: str
) -> None:
    folder = lay_out(tmp_path, "wrong", code, handler or "wrong.py")
    if handler:
        (folder / "wrong.py").unlink()
    done = mar(*words, folder, "--input", json.dumps(JSON_BODY))
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) <= 3

"""Requests that a model is too slow for: what they are told, and what their neighbours get."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import ROOT, copied

pytest.importorskip("torch")

from handlers.inference.pace import Pace
from handlers.inference.steps import Steps
from mar_pipeline.portable.context import LocalContext
from tests.support import tiny
from tests.support.unpacked import Served, lay_out

pytestmark = pytest.mark.slow

TASKS = ("seq_classification", "token_classification", "question_answering", "text_generation")
TOKEN = 0.01
"""Seconds that the slow models below take for a token, and for a step."""


class Slow:
    """A handler whose model takes TOKEN for each token, by a clock that nobody waits for."""

    def __init__(self, folder: Path, task: str, timeout: float = 10) -> None:
        checkpoint = tiny.save(folder / "checkpoint", "gpt2" if task == "text_generation" else "bert", task)
        self.ask = Served(lay_out(folder / "archive", checkpoint, task, "pretrained"), task)
        self.task, self.seconds = task, 0.0
        self.handler = self.ask.handler
        self.slow_by = 1.0
        pace = self.handler.pace = Pace({"responseTimeout": timeout}, lambda: self.seconds)
        pace.token = TOKEN
        self.handler.steps = Steps(TOKEN, 0.0)
        model = self.handler.model
        run, generate = model.run, model.generate

        def slowly(batch: Any) -> Any:
            self.seconds += self.slow_by * TOKEN * int(batch["attention_mask"].sum())
            return run(batch)

        def generated(rows: Any, batch: Any, pad: int, over: Any) -> None:
            def later() -> bool:
                self.seconds += self.slow_by * TOKEN
                return bool(over())

            self.seconds += self.slow_by * TOKEN * batch["input_ids"].numel()
            generate(rows, batch, pad, later)

        model.run, model.generate = slowly, generated

    def body(self, size: int) -> dict[str, Any]:
        """A request of some `size` tokens; of a generator, so many new ones."""
        if self.task == "text_generation":
            return {"prompt": "the room", "parameters": {"max_new_tokens": size, "stop": []}}
        text = "good " * size
        return {"question": "who", "context": text} if self.task == "question_answering" else {"text": text}

    def __call__(self, *bodies: Any) -> tuple[list[Any], list[int], float]:
        """Answers, codes, and the seconds that the batch took."""
        began = self.seconds
        replies = self.ask(*bodies)
        return replies, [self.ask.codes.get(index, 200) for index in range(len(bodies))], self.seconds - began


@pytest.fixture(scope="module", params=TASKS)
def slow(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Slow:
    return Slow(tmp_path_factory.mktemp("slow"), request.param)


def test_what_takes_more_than_half_of_the_timeout_is_refused_and_told_how_much_is_allowed(slow: Slow) -> None:
    answers, codes, seconds = slow([slow.body(50)] * 40, slow.body(1), {"instances": [slow.body(50)] * 40})
    if slow.task == "text_generation":  # whose rows are answered together
        answers, codes, seconds = slow([slow.body(1)] * 256, slow.body(1), {"instances": [slow.body(1)] * 256})
        assert "may take 5 s" in answers[0]["error"]["message"]
    else:
        assert "may have 500 on this server" in answers[0]["error"]["message"]
    assert codes == [413, 200, 413]
    assert seconds < 1


def test_the_largest_requests_of_a_batch_do_not_outlast_the_timeout(slow: Slow) -> None:
    slow.slow_by = 1.0
    giant = [slow.body(40)] * 9
    answers, codes, seconds = slow(*[giant] * 5, slow.body(1), slow.body(2), slow.body(1))
    assert seconds < 10
    assert codes[5:] == [200] * 3
    assert 200 in codes[:5]
    assert set(codes) <= {200, 503}
    for answer, code in zip(answers, codes, strict=True):
        if code == 503:
            assert answer["error"] == {
                "message": "the server is busy: this input was not started in time; try again, or with less text"
            }
            assert slow.ask.context.get_response_status(answers.index(answer))[1] == "Service Unavailable"


def test_a_machine_that_is_slower_than_at_loading_still_answers_the_neighbours(slow: Slow) -> None:
    slow.slow_by = 3.0
    answers, codes, seconds = slow([slow.body(40)] * 8, slow.body(1), slow.body(2))
    slow.slow_by = 1.0
    assert seconds < 10
    assert codes[1:] == [200, 200]
    again, more_codes, _ = slow(slow.body(1), slow.body(2))
    assert more_codes == [200, 200]
    assert json.dumps(again)[:40] == json.dumps(answers[1:])[:40]


def test_a_request_gets_one_503_though_some_of_its_inputs_had_time(tmp_path: Path) -> None:
    slow = Slow(tmp_path, "seq_classification")
    slow.slow_by = 4.0
    bodies = [slow.body(size) for size in (1, 2, 50, 50, 50, 50, 50, 50)]
    for body in (bodies, {"instances": bodies}):
        (answer,), codes, _ = slow(body)
        assert codes == [503]
        assert answer.keys() == {"error"}


def test_rows_that_do_not_end_in_time_get_503_and_a_text_that_does_is_the_same_as_alone(tmp_path: Path) -> None:
    slow = Slow(tmp_path, "text_generation")
    (alone,), _, _ = slow(slow.body(3))
    slow.slow_by = 30.0
    (short, long), codes, seconds = slow(slow.body(3), slow.body(60))
    assert codes == [200, 503]
    assert short == alone
    assert "error" in long
    assert seconds < 10


@pytest.mark.parametrize("task", TASKS)
def test_explanations_count_and_are_held_against_the_clock(task: str, tmp_path: Path) -> None:
    pytest.importorskip("captum")
    slow = Slow(tmp_path, task, timeout=100)
    slow.ask.context.explain = True
    body = {"prompt": "the room " * 4} if task == "text_generation" else slow.body(4)
    _, codes, _ = slow({**body, "steps": 500}, {**body, "steps": 2})
    assert codes == [413, 200]
    clock = slow.handler.pace._now
    slow.handler.pace._now = lambda: clock() + 40 * next(ticks)
    ticks = iter(range(10_000))
    _, codes, _ = slow({**body, "steps": 50})
    assert codes == [503]


def test_no_limit_depends_on_the_machine_where_nobody_waits(tmp_path: Path) -> None:
    checkpoint = tiny.save(tmp_path / "checkpoint", "bert", "seq_classification")
    folder = lay_out(tmp_path / "archive", checkpoint, "seq_classification", "pretrained")
    assert LocalContext(folder, hurried=False).model_yaml_config["responseTimeout"] is None
    assert "responseTimeout" not in LocalContext(folder).model_yaml_config


PRODUCTS = """
import handlers.runtimes.linear as linear, torch
weight = torch.rand(32, 16)
for rows in [*range(16, 216), 16]:
    torch.ops.mkldnn._linear_pointwise(torch.rand(rows, 16), weight, None, "none", [], "")
    print("rows", rows, flush=True)
"""


@pytest.mark.parametrize(
    ("given", "kept"),
    [({}, False), ({"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "500"}, True), ({"DNNL_PRIMITIVE_CACHE_CAPACITY": "500"}, True)],
    ids=["nothing", "a capacity", "its older name"],
)
def test_onednn_forgets_kernels_unless_the_user_has_another_capacity(given: dict[str, str], kept: bool) -> None:
    import os

    env = {name: value for name, value in os.environ.items() if "CACHE_CAPACITY" not in name}
    root = str(ROOT)
    env |= {"PYTHONPATH": root, "ONEDNN_VERBOSE": "profile_create", **given}
    done = subprocess.run([sys.executable, "-c", PRODUCTS], env=env, capture_output=True, text=True, check=True)
    last = done.stdout.rpartition("rows 215")[2]
    if "create:cache" not in last:
        pytest.skip("this torch multiplies without oneDNN here")
    assert ("create:cache_hit" in last, "create:cache_miss" in last) == (kept, not kept)


SLOW_MODEL = """

def _slowly(run):
    def slow(self, batch):
        import time
        time.sleep(0.002 * int(batch["attention_mask"].sum()))
        return run(self, batch)
    return slow


Pretrained.run = _slowly(Pretrained.run)
"""


def test_a_batch_of_large_requests_does_not_end_a_real_worker(tmp_path: Path) -> None:
    from mar_pipeline.serving.server import Server

    task, timeout = "seq_classification", 8
    folder = lay_out(tmp_path / "slow", tiny.save(tmp_path / "checkpoint", "bert", task), task, "pretrained")
    sources = ROOT / "handlers"
    copied(sources, folder / "handlers")
    shutil.copyfile(sources / f"{task}.py", folder / f"{task}.py")
    with (folder / "handlers" / "runtimes" / "pretrained.py").open("a", encoding="utf-8") as code:
        code.write(SLOW_MODEL)
    config = folder / "model-config.yaml"
    front = {"responseTimeout": timeout, "batchSize": 8, "maxBatchDelay": 500, "minWorkers": 1, "maxWorkers": 1}
    config.write_text(yaml.safe_dump({**yaml.safe_load(config.read_text()), **front}))
    manifest = json.loads((folder / "MAR-INF" / "MANIFEST.json").read_text())
    manifest["model"] |= {"modelName": "slow", "modelVersion": "1.0"}
    (folder / "MAR-INF" / "MANIFEST.json").write_text(
        json.dumps({"createdOn": "01/01/1980 00:00:00", "runtime": "python", "archiverVersion": "0.12.0", **manifest})
    )
    giant, small, beyond = ["good " * 60] * 16, "good", ["good " * 60] * 256
    with Server([folder]) as server, ThreadPoolExecutor(8) as pool:
        server.wait_ready(timeout=300)
        began = time.monotonic()
        asked = [pool.submit(server.client.predict, "slow", body) for body in [giant] * 4 + [small] * 3 + [beyond]]
        codes = [one.result().status_code for one in asked]
        took = time.monotonic() - began
        assert server.client.predict("slow", small).status_code == 200
        assert server.logs.deaths("slow") == 0
    assert codes[4:] == [200, 200, 200, 413]
    assert 200 in codes[:4]
    assert 503 in codes[:4]
    assert set(codes[:4]) <= {200, 503}
    assert took < 2 * timeout

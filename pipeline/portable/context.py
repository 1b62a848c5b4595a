"""TorchServe's context for a handler (`ts.context`, `ts.metrics`), without a server."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import yaml


class RequestProcessor:
    """The headers of one request, and the status and headers of its response."""

    def __init__(self, request_header: dict[str, Any]) -> None:
        self._status_code: int | None = 200
        self._reason_phrase: str | None = None
        self._response_header: dict[str, str] = {}
        self._request_header = request_header

    def get_request_property(self, key: str) -> Any:
        return self._request_header.get(key)

    def report_status(self, code: int, reason_phrase: str | None = None) -> None:
        self._status_code, self._reason_phrase = code, reason_phrase

    def get_response_status_code(self) -> int | None:
        return self._status_code

    def get_response_status_phrase(self) -> str | None:
        return self._reason_phrase

    def add_response_property(self, key: str, value: str) -> None:
        self._response_header[key] = value

    def get_response_headers(self) -> dict[str, str]:
        return self._response_header

    def get_response_header(self, key: str) -> str | None:
        return self._response_header.get(key)

    def get_request_properties(self) -> dict[str, Any]:
        return self._request_header


class LocalContext:
    """TorchServe's `ts.context.Context`. Unless `hurried`, responseTimeout is None: there is no time limit."""

    def __init__(self, model_dir: Path, *, hurried: bool = True) -> None:
        self.manifest = json.loads((model_dir / "MAR-INF" / "MANIFEST.json").read_text(encoding="utf-8"))
        config_file = self.manifest["model"].get("configFile")
        text = (model_dir / config_file).read_text(encoding="utf-8") if config_file else ""
        self.model_yaml_config: dict[str, Any] = yaml.safe_load(text) or {}
        if not hurried:
            self.model_yaml_config["responseTimeout"] = None
        self.model_name = self.manifest["model"].get("modelName") or model_dir.name
        gpu = isinstance(self.model_yaml_config, dict) and self.model_yaml_config.get("deviceType") == "gpu"
        self._system_properties: dict[str, Any] = {
            "model_dir": str(model_dir),
            "gpu_id": 0 if gpu else None,
            "batch_size": self.model_yaml_config.get("batchSize", 1),
            "server_name": "MMS",
            "server_version": "0.12.0",
            "limit_max_image_pixels": True,
        }
        self.request_ids: dict[int, str] | None = None
        self._request_processor: list[RequestProcessor] | None = None
        self.stopping_criteria = None
        self.cl_socket: Any = None
        self._metrics: Any = None
        self._limit_max_image_pixels = True
        self.header_key_sequence_id = os.getenv("TS_REQUEST_SEQUENCE_ID", "ts_request_sequence_id")
        self.header_key_sequence_start = os.getenv("TS_REQUEST_SEQUENCE_START", "ts_request_sequence_start")
        self.header_key_sequence_end = os.getenv("TS_REQUEST_SEQUENCE_END", "ts_request_sequence_end")
        self.explain = False
        """Whether the requests ask for explanations, like those to TorchServe's /explanations."""

    def begin(self, count: int, name: str = "local", *, parsed: bool = True) -> None:
        """A batch of `count` requests arrives, as JSON that is `parsed`, or as bytes."""
        kind = "application/json" if parsed else ""
        headers = {**({"Content-Type": kind} if kind else {}), "body": {"content-type": kind}}
        explain = {"explain": "True"} if self.explain else {}
        self.request_ids = {index: f"{name}-{index}" for index in range(count)}
        self.request_processor = [RequestProcessor({**headers, **explain}) for _ in range(count)]
        if self._metrics is not None:
            self._metrics.request_ids = self.request_ids

    def status(self, idx: int) -> int:
        """The HTTP status of a response."""
        code = self.get_response_status(idx)[0]
        return 200 if code is None else int(code)

    @property
    def system_properties(self) -> dict[str, Any]:
        return self._system_properties

    @property
    def request_processor(self) -> list[RequestProcessor] | None:
        return self._request_processor

    @request_processor.setter
    def request_processor(self, request_processor: list[RequestProcessor] | None) -> None:
        self._request_processor = request_processor

    @property
    def metrics(self) -> Any:
        if self._metrics is None:
            self._metrics = _metrics(str(self.model_name))
            self._metrics.request_ids = self.request_ids
        return self._metrics

    @metrics.setter
    def metrics(self, metrics: Any) -> None:
        self._metrics = metrics

    def get_request_id(self, idx: int = 0) -> str | None:
        return None if self.request_ids is None else self.request_ids.get(idx)

    def _processor(self, idx: int) -> RequestProcessor:
        if self.request_processor is None:
            raise TypeError("the context has no request yet")
        return self.request_processor[idx]

    def get_request_header(self, idx: int, key: str) -> Any:
        return self._processor(idx).get_request_property(key)

    def get_all_request_header(self, idx: int) -> dict[str, Any]:
        return self._processor(idx).get_request_properties()

    def set_response_content_type(self, idx: int, value: str) -> None:
        self.set_response_header(idx, "content-type", value)

    def get_response_content_type(self, idx: int) -> str | None:
        return self.get_response_headers(idx).get("content-type")

    def get_response_status(self, idx: int) -> tuple[int | None, str | None]:
        processor = self._processor(idx)
        return processor.get_response_status_code(), processor.get_response_status_phrase()

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        if self.request_processor is not None:
            self._processor(idx).report_status(code, reason_phrase=phrase)

    def set_all_response_status(self, code: int = 200, phrase: str = "") -> None:
        for processor in self.request_processor or ():
            processor.report_status(code, reason_phrase=phrase)

    def get_response_headers(self, idx: int) -> dict[str, str]:
        return self._processor(idx).get_response_headers()

    def set_response_header(self, idx: int, key: str, value: str) -> None:
        self._processor(idx).add_response_property(key, value)

    def get_sequence_id(self, idx: int) -> Any:
        return self._processor(idx).get_request_property(self.header_key_sequence_id)


def _metrics(model: str) -> Any:
    """TorchServe's own metrics, in its default configuration; without torchserve, an object that takes their calls."""
    try:
        import ts
        from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl
    except ImportError:
        return Uncounted()
    metrics = MetricsCacheYamlImpl(config_file_path=str(Path(ts.__file__).parent / "configs" / "metrics.yaml"))
    metrics.initialize_cache()
    metrics.model_name = model
    return metrics


class Uncounted:
    """Takes the calls of TorchServe's metrics, and of each metric, and counts nothing."""

    request_ids: Any = None
    _kinds = ("metric", "counter", "time", "size", "percent", "error", "metric_to_cache", "or_update")
    _calls = frozenset(("get_metric", "set_request_ids", "update", *map("add_{}".format, _kinds)))

    def __getattr__(self, name: str) -> Any:
        if name not in self._calls:
            raise AttributeError(f"TorchServe's metrics have no {name}")
        return lambda *_, **__: self

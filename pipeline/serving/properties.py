"""Writes and reads TorchServe's config.properties, as strings; no files.

The keys and their defaults are those of TorchServe 0.12 (`ConfigManager.java`). It ignores unknown keys silently, so
every key here was tested with a running server.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..archive import formats
from ..errors import InputError
from ..host.environment import withheld

LOOPBACK = "127.0.0.1"
SUFFIXES = (*formats.SUFFIXES, ".tgz", ".model")
"""The suffixes of files that TorchServe takes for archives."""
MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True, kw_only=True)
class Ports:
    """The TCP ports of one TorchServe.

    KServe's wrapper runs in the same container and uses 8080 and 8081, TorchServe's defaults. Hence 8085, which KServe
    uses for TorchServe, and 8086.
    """

    inference: int = 8085
    management: int = 8086
    metrics: int = 8082
    grpc_inference: int = 7070
    grpc_management: int = 7071

    def settings(self) -> dict[str, str]:
        """The settings of config.properties for these ports, all on loopback."""
        return {
            "inference_address": f"http://{LOOPBACK}:{self.inference}",
            "management_address": f"http://{LOOPBACK}:{self.management}",
            "metrics_address": f"http://{LOOPBACK}:{self.metrics}",
            "grpc_inference_address": LOOPBACK,
            "grpc_inference_port": str(self.grpc_inference),
            "grpc_management_address": LOOPBACK,
            "grpc_management_port": str(self.grpc_management),
        }


def served_name(archive: str) -> str:
    """The model name of an archive's file or folder: `sentiment` for `sentiment.mar`."""
    for suffix in SUFFIXES:
        if archive.endswith(suffix):
            return archive[: -len(suffix)]
    return archive


def config_properties(
    archives: Sequence[str],
    *,
    ports: Ports | None = None,
    settings: Mapping[str, str] | None = None,
    passed: Iterable[str] = (),
) -> str:
    """A config.properties that serves exactly `archives`: names of files (`a.mar`, `b.tar.gz`) or folders (`c`, archive
    format no-archive) in the model store. `settings` override single values, and `passed` are environment variables
    that workers get in addition to those of `host.environment`.

    It contains no path, so the folder can be moved: TorchServe gets the store as `--model-store`.
    Raises InputError for a name that TorchServe would misread, and for two archives with the same name.
    """
    names: dict[str, str] = {}
    for archive in archives:
        name = served_name(archive)
        if not MODEL_NAME.fullmatch(name):
            raise InputError(
                f"{archive!r} is not a model name that TorchServe accepts.",
                "A name has letters, digits, '_', '-' and '.', and starts with a letter or a digit.",
                "Rename it; or set archive.name, and build it again.",
            )
        if name in names:
            raise InputError(
                f"{names[name]} and {archive} would both be served as {name}.",
                "TorchServe serves one archive under one name.",
                "Remove one of them from the model store, or set another archive.name and build it again.",
            )
        names[name] = archive

    # TorchServe looks a plain name up in the store only. It copies a matching URL into the store first, and refuses it
    # if a file of that name exists, so nothing can be added that is not there already.
    allowed = "|".join(re.escape(archive).replace("\\.", "[.]").replace("\\-", "-") for archive in archives)
    sections: list[tuple[str, dict[str, str]]] = [
        ("Nothing but this machine reaches TorchServe.", (ports or Ports()).settings()),
        (
            "Predictions and management need a token from key_file.json, and models cannot be added or removed by\n"
            "calls. What needs no token: GET /metrics (names of models, counts, times) on the metrics port, and\n"
            "GET /api-description and OPTIONS / (which calls there are) on every port.\n"
            "KServe's wrapper knows no tokens: there, give the container the argument --disable-token-auth.",
            {
                "disable_token_authorization": "false",
                "enable_model_api": "false",
                "allowed_urls": f"file:///(?:.*/)?model-store/(?:{allowed})" if allowed else "(?!)",
                "use_env_allowed_urls": "false",
                "enable_envvars_config": "false",
                "install_py_dep_per_model": "false",
            },
        ),
        (
            "TorchServe keeps from its workers what this expression matches: every environment variable that it does\n"
            "not name. Add the names of those that a handler of yours needs.",
            {"blacklist_env_vars": withheld(passed)},
        ),
        (
            "What is served. Workers, batches and time-outs of an archive are in its own model-config.yaml;\n"
            "these hold where it says nothing (seconds, bytes).",
            {
                "load_models": ",".join(f"{name}={archive}" for name, archive in names.items()),
                "default_workers_per_model": "1",
                "default_startup_timeout": "120",
                "default_response_timeout": "120",
                "job_queue_size": "100",
                "max_request_size": "6553500",
                "max_response_size": "6553500",
                "enable_metrics_api": "true",
                "metrics_mode": "prometheus",
            },
        ),
    ]
    replaced = dict(settings or {})
    lines: list[str] = []
    for comment, values in sections:
        lines += [f"# {line}" for line in comment.splitlines()]
        lines += [f"{key}={escape(replaced.pop(key, value))}" for key, value in values.items()] + [""]
    if replaced:
        lines += [f"{key}={escape(value)}" for key, value in replaced.items()] + [""]
    snapshot = {"name": "mar", "modelCount": len(names), "models": {name: {} for name in names}}
    lines += [
        "# KServe's wrapper learns the models' names from a line that starts with model_snapshot. To TorchServe that",
        "# line would replace every archive's own settings, so for it the line is the end of the one before.",
        "kserve=\\",
        "model_snapshot=" + json.dumps(snapshot, separators=(",", ":")),
    ]
    return "\n".join(lines) + "\n"


def escape(value: str) -> str:
    """A value in a properties file. KServe's wrapper does not decode escapes, so only the necessary ones are
    written."""
    return value.replace("\\", "\\\\").replace("\n", "\\n")


def read_properties(text: str) -> dict[str, str]:
    """The properties in `text`, as Java reads them: the last value of a key counts. Raises InputError for a bad \\u
    escape."""
    import javaproperties

    try:
        return dict(javaproperties.loads(text))
    except javaproperties.InvalidUEscapeError as error:
        raise InputError(
            f"config.properties cannot be read: {error.escape} is not a valid escape.",
            "Java expects four hexadecimal digits after \\u; TorchServe does not start without them.",
            "Write a backslash as \\\\.",
        ) from None


def loaded_archives(properties: Mapping[str, str]) -> list[str] | None:
    """The file names of the archives in `load_models`; None for `all`."""
    value = properties.get("load_models", "").strip()
    if value.lower() == "all":
        return None
    return [part.split("=", 1)[-1].strip() for part in value.split(",") if part.strip()]


_PORT_KEYS = {
    "inference": "inference_address",
    "management": "management_address",
    "metrics": "metrics_address",
    "grpc_inference": "grpc_inference_port",
    "grpc_management": "grpc_management_port",
}
_DEFAULTS = {"inference": 8080, "management": 8081, "metrics": 8082, "grpc_inference": 7070, "grpc_management": 7071}


def listeners(properties: Mapping[str, str]) -> dict[str, tuple[str, int]]:
    """The addresses that TorchServe will listen on: setting -> (host, port). Raises InputError for an invalid one."""
    addresses = {}
    for name, key in _PORT_KEYS.items():
        default = _DEFAULTS[name]
        value = properties.get(key, "").strip()
        match: re.Match[str] | None
        if key.startswith("grpc_"):
            host = properties.get(key.replace("_port", "_address"), LOOPBACK)
            match = re.fullmatch(r"(\d*)", value)
            port = match[1] if match else ""
        else:
            match = re.fullmatch(r"https?://([^:/]+)(?::(\d+))?|", value, re.IGNORECASE)
            host, port = (match[1] or LOOPBACK, match[2]) if match else ("", "")
        if match is None:
            right = default if key.startswith("grpc_") else f"http://{LOOPBACK}:{default}"
            raise InputError(f"{key}={value} in config.properties is not an address.", "", f"Write {key}={right}.")
        addresses[key] = (host, int(port or default))
    return addresses


def ports_of(properties: Mapping[str, str]) -> Ports:
    """The ports in a config.properties, or TorchServe's defaults."""
    places = listeners(properties)
    return Ports(**{name: places[key][1] for name, key in _PORT_KEYS.items()})

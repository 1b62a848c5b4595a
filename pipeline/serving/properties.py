"""The text of TorchServe's config.properties. Pure: strings in, strings out.

The keys and their defaults are those of TorchServe 0.12 (`ConfigManager.java`); a key it does not know is ignored
without a word, so every name here was tried against a running server.
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
"""Of files that TorchServe takes for archives."""
MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True, kw_only=True)
class Ports:
    """The TCP ports of one TorchServe.

    KServe's wrapper runs in TorchServe's own container and takes 8080 and 8081 there, which are TorchServe's
    defaults: hence 8085, KServe's custom, and the next.
    """

    inference: int = 8085
    management: int = 8086
    metrics: int = 8082
    grpc_inference: int = 7070
    grpc_management: int = 7071

    def settings(self) -> dict[str, str]:
        """The ports as config.properties names them, all on loopback."""
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
    """The model name that an archive's file or folder name stands for: `sentiment` for `sentiment.mar`."""
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
    """A config.properties that serves exactly `archives`: names of files (`a.mar`, `b.tar.gz`) or folders (`c`,
    archive format no-archive) that lie in the model store. `settings` replace single values, and `passed` are
    environment variables that the workers get beside those of `environment`.

    No path is in it, so that the tree can be moved: TorchServe gets the store as `--model-store`.
    Raises InputError for a name that TorchServe would misread, and for two archives of one name.
    """
    names: dict[str, str] = {}
    for archive in archives:
        name = served_name(archive)
        if not MODEL_NAME.fullmatch(name):
            raise InputError(
                f"{archive!r} cannot be a model's name in TorchServe.",
                "A name is made of letters, digits, '_', '-' and '.', and starts with a letter or a digit.",
                "Set archive.name to another one.",
            )
        if name in names:
            raise InputError(
                f"{names[name]} and {archive} would both be served as {name}.",
                "TorchServe serves one archive under one name.",
                "Remove one of them from the model store, or give it another archive.name.",
            )
        names[name] = archive

    # A bare name is looked up in the store only. A URL that matches is copied into the store first, and refused if
    # a file of that name is there, so this lets nothing in that is not there already.
    allowed = "|".join(re.escape(archive).replace("\\.", "[.]").replace("\\-", "-") for archive in archives)
    sections: list[tuple[str, dict[str, str]]] = [
        ("Nothing but this machine reaches TorchServe.", (ports or Ports()).settings()),
        (
            "Every call needs its token from key_file.json, and models cannot be added or removed by calls.\n"
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
    """A value as a properties file writes it. KServe's wrapper undoes no escapes, so none is written but these."""
    return value.replace("\\", "\\\\").replace("\n", "\\n")


def read_properties(text: str) -> dict[str, str]:
    """What Java's Properties makes of `text`: the last value of a key counts. Raises InputError where Java does."""
    import javaproperties

    try:
        return dict(javaproperties.loads(text))
    except javaproperties.InvalidUEscapeError as error:
        raise InputError(
            f"config.properties cannot be read: {error.escape} is not a character's number.",
            "Behind \\u Java expects four digits of a hexadecimal number, and TorchServe ends if there are none.",
            "Write a backslash as two.",
        ) from None


def loaded_archives(properties: Mapping[str, str]) -> list[str] | None:
    """The archives that `load_models` names, each as the store has it; None if it says `all`."""
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
    """Where TorchServe will listen: setting -> (host, port). Raises InputError for an address that is none."""
    found = {}
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
            raise InputError(f"{key}={value} in config.properties is no address.", "", f"Write {key}={right}.")
        found[key] = (host, int(port or default))
    return found


def ports_of(properties: Mapping[str, str]) -> Ports:
    """The ports that a config.properties names, or TorchServe's defaults."""
    places = listeners(properties)
    return Ports(**{name: places[key][1] for name, key in _PORT_KEYS.items()})

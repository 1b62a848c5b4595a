"""`mar serve`: TorchServe on an output folder, in the foreground."""

from __future__ import annotations

import errno
import json
import os
import shlex
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ..archive.reader import Archive
from ..errors import OK, InputError, MarError
from .properties import SUFFIXES, Ports, listeners, loaded_archives, read_properties, served_name
from .server import Server
from .smoke import shown

_GRACE = 15.0  # seconds for requests to finish after Ctrl-C


def serve(
    out: Path,
    report: Callable[[str], None] = lambda _: None,
    *,
    ports: Ports | None = None,
    ready_timeout: float = 600.0,
    keep: Path | None = None,
    accept: Callable[[Sequence[Path]], object] = lambda _: None,
) -> int:
    """Serve `out`/model-store with `out`/config/config.properties until Ctrl-C or SIGTERM; returns the exit code.

    `ports` replace those of config.properties. `report` gets lines for the user: the address, the file of tokens, a
    request to try, and later why a worker died. `accept` gets every archive in the store before one of them is read,
    and raises InputError if one is not to be served.
    Raises InputError before the start if something is missing or a port is in use, WorkerDied if an archive does not
    load, StageError if TorchServe ends by itself.
    """
    config, store = out / "config" / "config.properties", out / "model-store"
    try:
        if not config.is_file():
            raise FileNotFoundError
        text = config.read_text(encoding="utf-8")
    except (PermissionError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{config} cannot be read: {reason}.", fix="Make it readable, or build again.") from None
    except OSError:
        raise InputError(
            f"There is nothing to serve in {out}: it has no config/config.properties.",
            "Nothing was built into this folder yet.",
            f"Build into it (mar build CONFIG --out {shlex.quote(str(out))}), or set --out to where you built.",
        ) from None
    properties = read_properties(text)
    archives = [store / name for name in loaded_archives(properties) or _all(store)]
    if not archives:
        raise InputError(
            f"The model store {store} is empty, or {config} loads nothing of it (load_models).",
            fix=f"Build into it: mar build CONFIG --out {shlex.quote(str(out))}",
        )
    accept(sorted({*archives, *(store / name for name in _all(store))}))
    check_ports({**properties, **(ports.settings() if ports else {})})
    with (
        Server(archives, store=store.resolve(), config=text, ports=ports, jvm=(), grace=_GRACE, keep=keep) as server,
        shown(report),
    ):
        try:
            _run(server, archives, report, ready_timeout)
        except (KeyboardInterrupt, SystemExit):
            report("TorchServe stops.")
    return OK


def _run(server: Server, archives: list[Path], report: Callable[[str], None], ready_timeout: float) -> None:
    report(f"TorchServe starts with {', '.join(server.names)}")
    took = server.wait_ready(timeout=ready_timeout)
    report(f"READY after {took:.1f} s: {server.client.address}")
    if server.client.key_file.exists():
        report(f"Tokens: {server.client.key_file} (they last an hour; the file goes with the server)")
        report(f"A new one: {renew_line(server)}")
    report(f"Logs: {server.logs.folder}")
    report("Try it:\n" + curl_line(server, archives[0]))
    died = {name: server.logs.deaths(name) for name in server.names}
    while server.running:
        time.sleep(0.5)
        for name, before in died.items():
            now = server.logs.deaths(name)
            if now > before:
                died[name] = now
                time.sleep(0.5)  # its traceback comes through another pipe, and so later
                error = server.logs.death(name, "died, and TorchServe starts it again")
                report(f"{error}\n{error.details}")
    raise server.ended()


def curl_line(server: Server, archive: Path) -> str:
    """A shell command that sends the first sample of `archive` to the server."""
    try:
        samples = Archive(archive).json("samples.json")
    except (MarError, ValueError):
        samples = None
    body = json.dumps(samples[0] if isinstance(samples, list) and samples else {}, ensure_ascii=False)
    return " ".join(
        [
            f"curl -s {server.client.address}/predictions/{served_name(archive.name)}",
            *([f'-H "Authorization: Bearer {_key(server, "inference")}"'] if server.client.key_file.exists() else []),
            "-H 'Content-Type: application/json' -d",
            shlex.quote(body),
        ]
    )


def renew_line(server: Server) -> str:
    """A shell command that renews the inference token."""
    url = f"http://127.0.0.1:{server.ports.management}/token?type=inference"
    return f'curl -s "{url}" -H "Authorization: Bearer {_key(server, "API")}"'


def _key(server: Server, kind: str) -> str:
    """Shell code that prints a token. It reads the file each time, so it works after a renewal, and the token does not
    appear in the terminal."""
    file = shlex.quote(str(server.client.key_file))
    return f"""$(sed -n '/"{kind}"/,/}}/s/.*"key": "\\(.*\\)".*/\\1/p' {file})"""


def check_ports(properties: dict[str, str]) -> None:
    """Raises InputError if a port of TorchServe is in use."""
    for setting, (host, port) in listeners(properties).items():
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            # As servers do: connections in TIME_WAIT do not matter.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                in_use = error.errno == errno.EADDRINUSE
                reason = "something listens there already" if in_use else os.strerror(error.errno or 0)
                raise InputError(
                    f"TorchServe cannot listen on port {port} of {host}: {reason}.",
                    "Usually another TorchServe runs on this machine." if in_use else "",
                    f"{'End it, or set' if in_use else 'Set'} another one in {setting} of config/config.properties.",
                ) from None


def _all(store: Path) -> list[str]:
    """The archives that `load_models=all` loads."""
    if not store.is_dir():
        return []
    return sorted(
        path.name
        for path in store.iterdir()
        if not path.name.startswith(".") and (path.is_dir() or path.name.endswith(SUFFIXES))
    )

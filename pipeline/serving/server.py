"""Starts a TorchServe, waits until its workers are READY, and stops it without leaving anything behind.

Java is started directly and not by the `torchserve` command: that one has a single process id file per machine,
/tmp/.model_server.pid, so that two servers, or servers of two users, would conflict.
"""

from __future__ import annotations

import contextlib
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from ..archive.reader import Archive
from ..errors import StageError
from ..files import private
from ..host.environment import passed, withheld
from ..host.java import find_httpx, find_java, find_torchserve
from ..host.process import end_group, ending_on_signals, environment, guard
from . import diagnosis
from .client import KEY_FILE, Client
from .logs import Logs, read
from .properties import LOOPBACK, Ports, config_properties, ports_of, read_properties, served_name

# JVM options for a server that answers a few requests: only the fast first compiler, and the garbage collector with the
# fewest threads. Both cost throughput in the long run.
QUICK_START = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
_QUICK_SETTINGS = {
    # Collecting system metrics starts a Python process, at once and every minute.
    "disable_system_metrics": "true",
    "metrics_mode": "log",
    "number_of_netty_threads": "2",
    "netty_client_threads": "2",
    # Minutes (default 60): the tokens outlast any test or benchmark.
    "token_expiration_min": "1440",
}

_SPINS = "3000"
"""GOMP_SPINCOUNT: how long a thread of GNU OpenMP spins before it sleeps. This is about 30 us; the default is 3 ms, a
hundred times for each batch, which takes a core from other processes. benchmarks/busy.py measures both."""

_KERNELS = "64"
"""The capacity of oneDNN's kernel cache in a worker, as in handlers/runtimes/linear.py: for other handlers."""

_POLL = 0.15  # seconds
_SILENCE = 5.0  # seconds; TorchServe may miss the last lines of a dying worker, which the next one repeats


def free_ports() -> Ports:
    """Five unused loopback ports, below the range for outgoing connections (from 32768 on Linux), so that they stay
    free until the server starts."""
    with contextlib.ExitStack() as stack:
        ports: list[int] = []
        while len(ports) < 5:
            port = random.randrange(20000, 32000)  # noqa: S311 - a port is no secret
            probe = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind((LOOPBACK, port))
                ports.append(port)
    inference, management, metrics, grpc_inference, grpc_management = ports
    return Ports(
        inference=inference,
        management=management,
        metrics=metrics,
        grpc_inference=grpc_inference,
        grpc_management=grpc_management,
    )


class Server:
    """A TorchServe on loopback with token authorization; a context manager.

    `archives` are .mar or .tar.gz files or folders (format no-archive), each served under its file name. With `store`
    and `config`, the path of a model store and the text of its config.properties, they are the archives in that store.
    `settings` are added to config.properties, `jvm` are options of the Java process, `env` is added to its environment,
    which the workers inherit. `ports` default to those of `config`, else to free ones.
    `grace` is the time in seconds that requests have to finish at `stop()`; 0 kills at once, which is safe, as the
    server writes only to a temporary folder.
    `keep` is a folder for the logs if a model does not load (by default a new one in the temporary folder).
    `python` is the workers' interpreter, by default this one. It needs torchserve, and the archives' packages.
    After the start, `client` sends requests, and `logs` reads the logs.

    Raises InputError if Java, TorchServe or httpx is missing, or a file is not an archive.
    """

    def __init__(
        self,
        archives: Sequence[Path],
        *,
        store: Path | None = None,
        config: str | None = None,
        ports: Ports | None = None,
        settings: Mapping[str, str] | None = None,
        jvm: Sequence[str] = QUICK_START,
        env: Mapping[str, str] | None = None,
        grace: float = 0.0,
        keep: Path | None = None,
        python: Path | None = None,
    ) -> None:
        for path in archives:
            Archive(path)  # TorchServe would treat an unreadable archive as an empty one
        self.archives = {served_name(path.name): path for path in archives}
        self.names = tuple(self.archives)
        properties = read_properties(config) if config is not None else {}
        self.ports = ports or (ports_of(properties) if config is not None else free_ports())
        self._has_keys = properties.get("disable_token_authorization", "false") != "true"
        self.ready: dict[str, float] = {}  # seconds from the start to the first READY worker
        self._store, self._config, self._settings = store, config, dict(settings or {})
        self._jvm, self._env, self._grace = tuple(jvm), dict(env or {}), grace
        self._keep, self._python = keep, str(python or sys.executable)
        self._java, self._home, self._httpx = find_java(), find_torchserve(), find_httpx()
        self._process: subprocess.Popen[bytes] | None = None
        self._first_death: dict[str, float] = {}
        self._exit = contextlib.ExitStack()

    # Life

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server, without waiting until it answers (`wait_ready`)."""
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        self._exit.enter_context(ending_on_signals())
        temporary_folder = private.in_temporary("serve", _short_temporary_folder())
        self.folder = self._exit.enter_context(temporary_folder)
        # TorchServe first reads an archive's name as a path in its working folder, so that folder has to be empty.
        self.cwd, logs, temporary = (self.folder / name for name in ("run", "logs", "tmp"))
        for folder in (self.cwd, logs, temporary):
            folder.mkdir()
        self.client = Client(self._httpx, self.ports, self.cwd / KEY_FILE, has_keys=self._has_keys)
        self.logs = Logs(logs, keep=self._keep, python=self._python)
        self._exit.callback(self.logs.close)
        config = self.folder / "config.properties"
        config.write_text(self._properties(), encoding="utf-8")
        command = [
            str(self._java),
            f"-Dmodel_server_home={self._home}",
            # For unpacked archives and the workers' sockets: two servers must not share it.
            f"-Djava.io.tmpdir={temporary}",
            *self._jvm,
            *("-cp", f"{self._home}/ts/frontend/*", "org.pytorch.serve.ModelServer"),
            *("--python", self._python, "-f", str(config), "-s", str(self._store), "-ncs"),
        ]
        env = environment({"LOG_LOCATION": str(logs), "METRICS_LOCATION": str(logs), **self._env})
        if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & env.keys():
            env["GOMP_SPINCOUNT"] = _SPINS
        if not {"ONEDNN_PRIMITIVE_CACHE_CAPACITY", "DNNL_PRIMITIVE_CACHE_CAPACITY"} & env.keys():
            env["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] = _KERNELS
        self._started = time.monotonic()
        with (self.folder / "output.txt").open("wb") as output:
            self._process = subprocess.Popen(
                command,
                cwd=self.cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # The folder is in use as long as the server lives.
                pass_fds=[temporary_folder.lock],
            )
        self._guard = guard(self._process.pid, self.folder)

    def _properties(self) -> str:
        more = [*passed(), *self._env]
        if self._config is not None and self._store is not None:
            # The last value of a key counts.
            configured = ports_of(read_properties(self._config))
            changes = {"blacklist_env_vars": withheld(more), **self._settings}
            changes |= self.ports.settings() if self.ports != configured else {}
            return self._config + "\n" + "".join(f"{key}={value}\n" for key, value in changes.items())
        self._store = self.folder / "model-store"
        self._store.mkdir()
        for path in self.archives.values():
            (self._store / path.name).symlink_to(path.resolve())
        # A worker would write compiled modules into a no-archive folder, which is the user's.
        self._env.setdefault("PYTHONDONTWRITEBYTECODE", "1")
        settings = {**_QUICK_SETTINGS, **self._settings}
        names = [path.name for path in self.archives.values()]
        return config_properties(names, ports=self.ports, settings=settings, passed=more)

    def stop(self) -> None:
        """End the server and all its processes. May be called twice."""
        try:
            if self._process is not None:
                self.client.close()
                end_group(self._process, self._grace)
                self._process = None
                assert self._guard.stdin is not None
                self._guard.kill()
                self._guard.wait()
                self._guard.stdin.close()
        finally:
            self._exit.close()

    @property
    def pid(self) -> int | None:
        """The id of the Java process, and of the process group of the server."""
        return None if self._process is None else self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    # Readiness

    def wait_ready(self, names: Sequence[str] | None = None, timeout: float = 120.0) -> float:
        """Wait until each of `names` (by default all) has a READY worker; returns the seconds since the start.

        Raises WorkerDied as soon as it is clear that a model will not load, StageError if the server ends or after
        `timeout` seconds.
        """
        waiting = [name for name in (self.names if names is None else names) if name not in self.ready]
        deadline = time.monotonic() + timeout
        while waiting:
            if not self.running:
                raise self.ended()
            states = {name: self.client.workers(name) for name in waiting}
            for name, state in states.items():
                if state is not None and "READY" in state:
                    self.ready[name] = time.monotonic() - self._started
                else:
                    self._check(name, registered=state != [])
            waiting = [name for name in waiting if name not in self.ready]
            if waiting and time.monotonic() > deadline:
                raise StageError(
                    f"{', '.join(waiting)} had no READY worker after {timeout:.0f} s.",
                    f"Its worker is still loading. {self.logs.last_word(waiting[0])}".rstrip(),
                    "End other programs and try again, or use a larger machine; `mar doctor` shows what is free.",
                )
            if waiting:
                time.sleep(_POLL)
        return time.monotonic() - self._started

    def _check(self, name: str, *, registered: bool) -> None:
        """Raise WorkerDied if `name` will not load."""
        if not registered:
            # Models are registered before the ports are opened, so this one was refused.
            raise self.logs.refused(name, self.archives[name].name if name in self.archives else None)
        count = self.logs.deaths(name)
        if not count:
            return
        # The worker's last lines come through another pipe, and so later.
        time.sleep(5 * _POLL)
        since = time.monotonic() - self._first_death.setdefault(name, time.monotonic())
        if (count > 1 and since > _SILENCE) or self.logs.diagnose(name).certain:
            raise self.logs.death(name, "does not load")

    def ended(self) -> StageError:
        """The error for a server that ended by itself."""
        code = self._process.poll() if self._process is not None else None
        return StageError(*diagnosis.end(read(self.folder / "output.txt"), code))


def _short_temporary_folder() -> str:
    """The folder for temporary folders: a short path, since a socket's path below it may have 107 characters at
    most."""
    usual = tempfile.gettempdir()
    return usual if len(usual) <= 60 else "/tmp"  # noqa: S108 - only a private folder is made in it

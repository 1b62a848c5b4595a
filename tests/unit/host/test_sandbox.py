"""The sandbox: what a program in it can read, write, reach and use, tried by programs that want more."""

from __future__ import annotations

import json
import os
import platform
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mar_pipeline.errors import InputError, StageError
from mar_pipeline.host.sandbox import Sandbox
from mar_pipeline.workers import client
from tests.support import bwrap

GENEROUS = 1 << 30

Run = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs Python code in a sandbox, in a folder of its own; what it assigns to `result`, else its exit code."""
    bwrap.on_path(monkeypatch)
    folder = tmp_path / "job"
    folder.mkdir()

    def run(code: str, *, memory: int = GENEROUS, timeout: float = 60, readable: tuple[Path, ...] = ()) -> Any:
        program = folder / "program.py"
        program.write_text(f"import json, os, sys\nresult = None\n{code}\nprint(json.dumps(result), flush=True)\n")
        lines: list[str] = []
        code_of = client.run(
            [sys.executable, str(program)],
            cwd=folder,
            log=folder / "log.txt",
            on_line=lines.append,
            sandbox=Sandbox(memory=memory, timeout=timeout),
            readable=readable,
        )
        return json.loads(lines[-1]) if lines else (code_of, client.tail(folder / "log.txt"))

    return run


@contextmanager
def listening() -> Iterator[int]:
    """A server of this machine's loopback; its port. It must not be reached."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        yield server.getsockname()[1]
        with pytest.raises(BlockingIOError):
            server.accept()


def test_the_users_files_are_not_there(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    secrets = [home / ".ssh" / "id_rsa", home / ".aws" / "credentials", tmp_path / "beside.txt"]
    for secret in secrets:
        secret.parent.mkdir(parents=True, exist_ok=True)
        secret.write_text("secret")
    monkeypatch.setenv("HOME", str(home))
    paths = [*map(str, secrets), "/etc/shadow", "/root/.bashrc", "/var/log", "/run", str(Path.cwd() / "pyproject.toml")]
    code = f"""
result = [path for path in {paths!r} if os.path.exists(path)] + [
    os.path.join(folder, name) for folder in ("/home", "/root", "/mnt", "/media", "/srv", "/var")
    if os.path.isdir(folder) for name in os.listdir(folder)
]"""
    # What Python is in may be in the home; its other files are not.
    ways = {str(way) for path in (sys.prefix, sys.base_prefix, *sys.path) for way in (Path(path), *Path(path).parents)}
    assert [path for path in run(code) if path not in ways] == []


def test_what_is_named_can_be_read_and_nothing_beside_it(run: Run, tmp_path: Path) -> None:
    (tmp_path / "given").mkdir()
    for name in ("given/a.txt", "b.txt"):
        (tmp_path / name).write_text("text")
    code = f"result = [os.path.exists(p) for p in ({str(tmp_path / 'given/a.txt')!r}, {str(tmp_path / 'b.txt')!r})]"
    assert run(code, readable=(tmp_path / "given",)) == [True, False]


def test_nothing_can_be_written_but_in_folders_that_go_with_it(run: Run, tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.mkdir()
    places = ["/", "/usr", "/etc", "/dev", "/home", "/tmp", "/dev/shm", str(given), str(tmp_path / "job"), sys.prefix]
    places += [str(Path(sys.path[-1])), str(tmp_path)]
    code = f"""
result = []
for place in {places!r}:
    try:
        open(os.path.join(place, "mar-was-here"), "w").write("x")
        result.append(place)
    except OSError:
        pass
"""
    # The test's own folder is below /tmp: it is there only as the way to the folders that are named.
    written = run(code, readable=(given,))
    assert set(written) - {str(tmp_path)} == {"/tmp", "/dev/shm"}
    assert not Path("/tmp/mar-was-here").exists()
    assert not Path("/dev/shm/mar-was-here").exists()
    assert list(tmp_path.glob("mar-was-here")) == []


@pytest.mark.parametrize("own", [False, True], ids=["as it is", "in a namespace of its own"])
def test_what_is_read_only_cannot_be_mounted_otherwise(run: Run, own: bool) -> None:
    """As root neither, whom bubblewrap leaves the capabilities by default."""
    code = f"""
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
{own} and libc.unshare(0x10000000 | 0x20000)  # CLONE_NEWUSER, CLONE_NEWNS
result = []
for place in (b"/", b"/usr"):
    result.append(libc.mount(None, place, None, 32 | 4096, None))  # MS_REMOUNT, MS_BIND: no longer read-only
    result.append(libc.umount2(place, 2))
try:
    open("/usr/mar-was-here", "w")
    result.append("written")
except OSError:
    pass
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
result.append([status[name].strip() for name in ("CapEff", "CapPrm", "CapBnd")])
"""
    assert run(code) == [-1, -1, -1, -1, ["0" * 16] * 3]
    assert not Path("/usr/mar-was-here").exists()


@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="no filter of system calls")
def test_memory_keys_and_sockets_that_no_namespace_holds_are_refused(run: Run) -> None:
    """The C library's wrappers, where it has some: the numbers of the calls are its own."""
    code = """
import ctypes, errno, mmap, socket, threading
result = {}
libc = ctypes.CDLL(None, use_errno=True)
def tried(name, call):
    ctypes.set_errno(0)
    try:
        done = call()
        result[name] = errno.errorcode.get(ctypes.get_errno(), "done") if done == -1 else "done"
    except OSError as error:
        result[name] = errno.errorcode[error.errno]
tried("memfd", lambda: os.memfd_create("a"))
tried("vsock", lambda: socket.socket(40, socket.SOCK_STREAM))
tried("unshare", lambda: libc.unshare(0x10000000))
tried("clone", lambda: libc.syscall({"x86_64": 56, "aarch64": 220}[os.uname().machine], 0x10000011, 0, 0, 0, 0))
tried("keys", lambda: libc.syscall({"x86_64": 250, "aarch64": 219}[os.uname().machine], 0, -3, 0, 0, 0))
tried("ring", lambda: libc.syscall(425, 1, 0))
tried("bpf", lambda: libc.syscall({"x86_64": 321, "aarch64": 280}[os.uname().machine], 0, 0, 0))
thread = threading.Thread(target=lambda: result.update(thread="done"))
thread.start(); thread.join()
if not os.fork():
    os._exit(7)
result["fork"] = os.waitstatus_to_exitcode(os.wait()[1])
tried("inet", lambda: socket.socket().fileno())
"""
    refused = dict.fromkeys(("memfd", "keys", "ring", "bpf"), "ENOSYS")
    assert run(code) == {
        **refused, "vsock": "EPERM", "unshare": "EPERM", "clone": "EPERM", "thread": "done", "fork": 7, "inet": "done",
    }  # fmt: skip


def test_there_is_no_network(run: Run) -> None:
    with listening() as port:
        code = f"""
import socket
result = []
for address in (("127.0.0.1", {port}), ("10.255.255.1", 80), ("8.8.8.8", 53)):
    try:
        socket.create_connection(address, 3)
        result.append(address)
    except OSError:
        pass
"""
        assert run(code) == []


def test_a_socket_of_this_machine_is_not_reached(run: Run, tmp_path: Path) -> None:
    """Docker's and the agent's of SSH are such."""
    with socket.socket(socket.AF_UNIX) as plain, socket.socket(socket.AF_UNIX) as abstract:
        plain.bind(str(tmp_path / "agent.sock"))
        abstract.bind(f"\0mar-{os.getpid()}")
        for one in (plain, abstract):
            one.listen()
        code = f"""
import socket
result = []
for address in ({str(tmp_path / "agent.sock")!r}, "\\0mar-{os.getpid()}"):
    try:
        socket.socket(socket.AF_UNIX).connect(address)
        result.append(address)
    except OSError:
        pass
"""
        assert run(code) == []


def test_secrets_of_the_environment_and_of_other_processes_are_not_seen(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_s3cr3t")
    monkeypatch.setenv("DATABASE", "postgres://me:s3cr3t@db")
    code = """
found = dict(os.environ)
for number in filter(str.isdigit, os.listdir("/proc")):
    for file in ("environ", "cmdline"):
        try:
            found[number + file] = open(f"/proc/{number}/{file}").read()
        except OSError:
            pass
result = [[name for name, value in found.items() if "s3cr3t" in value], os.environ["HOME"], os.getpid() < 10]
"""
    assert run(code) == [[], "/tmp", True]


@pytest.mark.parametrize(
    "code",
    [
        "data = bytearray(1 << 40)",
        "import mmap; kept = mmap.mmap(-1, 2 << 30); [kept.write(bytes(1 << 20)) for _ in range(2048)]",
        "kept = [os.fork() or bytearray(b'x' * (200 << 20)) for _ in range(3)]; import time; time.sleep(60)",
    ],
    ids=["at once", "shared", "by children"],
)
def test_too_much_memory_ends_it(run: Run, code: str) -> None:
    begin = time.monotonic()
    try:
        said = str(run(code, memory=512 << 20))
    except StageError as error:
        said = str(error)
    assert "used more than 536.9 MB of memory (--memory)" in said or "MemoryError" in said
    assert time.monotonic() - begin < 50


def test_a_machine_with_hardly_any_memory_left_ends_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not all memory is a process's: that of files in memory is not."""
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=100, available=4))
    with pytest.raises(StageError, match="left this machine with less than 5% of its memory"):
        run("import time; time.sleep(60)")


@pytest.mark.parametrize("folder", ["/tmp", "/dev/shm"])
def test_its_files_are_bounded(run: Run, folder: str) -> None:
    code = f"""
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
result = 0
try:
    for number in range(4):
        with open(f"{folder}/{{number}}", "wb", buffering=0) as file:
            for _ in range(128):
                result += file.write(bytes(1 << 20))
except OSError as error:
    pass
"""
    assert run(code, memory=4 << 30) <= 256 << 20


def test_a_log_without_end_is_cut(run: Run, tmp_path: Path) -> None:
    run("while True: sys.stderr.write('x' * 1000000)", timeout=60)
    assert (tmp_path / "job" / "log.txt").stat().st_size <= 256 << 20


def test_a_line_without_end_takes_no_memory_here(run: Run) -> None:
    with pytest.raises(StageError, match=r"took longer than 3 seconds \(--timeout\)"):
        run("while True: sys.stdout.write('[' * 1000000)", timeout=3)


@pytest.mark.parametrize(
    "code",
    [
        "import time; time.sleep(600)",
        "import signal; [signal.signal(n, signal.SIG_IGN) for n in (1, 2, 15)]\nwhile True: pass",
        "os.close(1); os.close(2); import time; time.sleep(600)",
    ],
    ids=["sleeps", "ignores signals", "closes its output"],
)
def test_what_does_not_end_is_ended(run: Run, code: str) -> None:
    begin = time.monotonic()
    with pytest.raises(StageError, match=r"took longer than 2 seconds \(--timeout\)"):
        run(code, timeout=2)
    assert time.monotonic() - begin < 20


def test_many_processes_end_it(run: Run) -> None:
    code = """
import time
for _ in range(2000):
    if not os.fork():
        time.sleep(600)
        os._exit(0)
time.sleep(600)
"""
    with pytest.raises(StageError, match="started more than 256 processes"):
        run(code, memory=64 << 30, timeout=60)


def test_no_process_outlives_it(run: Run) -> None:
    name = f"mar-outliving-{os.getpid()}"
    code = f"""
if not os.fork():
    os.setsid()
    if not os.fork():
        os.close(1); os.close(2)
        os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(300)", {name!r}])
    os._exit(0)
import time; time.sleep(1)
"""
    run(code)
    time.sleep(0.5)
    commands = [file.read_bytes() for file in Path("/proc").glob("[0-9]*/cmdline") if file.exists()]
    assert not [line for line in commands if name.encode() in line]


def test_without_bubblewrap_nothing_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="no bwrap on PATH") as caught:
        Sandbox(memory=GENEROUS)
    assert "apt-get install bubblewrap" in str(caught.value)


def test_without_user_namespaces_nothing_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As bubblewrap says it where they are off."""
    said = "bwrap: No permissions to create new namespace"
    (tmp_path / "bwrap").write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 1\n")
    (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(InputError, match=f"No sandbox can be made here: {said}"):
        Sandbox(memory=GENEROUS)

"""Runs a program in a sandbox of bubblewrap (https://github.com/containers/bubblewrap): without network, on a read-only
file system that has what Python needs and the folders that are named, and within limits of memory and time.

What holds it are Linux's namespaces, which are not a virtual machine: an error of the kernel may let a program out.
"""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from .. import ROOT
from ..errors import InputError
from ..text import printable, size
from . import system_calls, watching

TIMEOUT = 600.0
"""The default time limit in seconds."""
LEAST = 256 << 20
"""The least memory that a worker starts with."""
MOST = 1 << 50
"""More memory than a shell's `ulimit` takes."""
DISK = 256 << 20
"""The most bytes of a file, and of each of the writable folders, /tmp and /dev/shm, which are in memory."""
PROCESSES = 256
"""The most processes at a time."""

# Programs, libraries and what they are configured by. The rest of /etc may have credentials, and is not there.
_SYSTEM = (
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store",
    "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/passwd", "/etc/group",
    "/etc/nsswitch.conf", "/etc/localtime", "/etc/timezone", "/etc/mime.types",
    # torch's libraries choose their code by the processors that they find here.
    "/sys/devices/system",
)  # fmt: skip
# bubblewrap leaves root the capabilities by default, and with them what is read-only can be mounted otherwise.
_ALONE = ("--unshare-all", "--cap-drop", "ALL", "--die-with-parent", "--new-session")
# Kilobytes of memory and blocks of 512 bytes (POSIX), and no core dumps.
_LIMITED = 'ulimit -c 0 && ulimit -d "$1" && ulimit -f "$2" && shift 2 && exec "$@"'

# Folders of the user, which are not there; TMPDIR and HOME are set to /tmp.
_GONE = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "HF_HOME", "HF_HUB_CACHE",
         "HUGGINGFACE_HUB_CACHE", "HF_ASSETS_CACHE", "TRANSFORMERS_CACHE")  # fmt: skip


def default_memory() -> int:
    """The default memory limit in bytes: three quarters of the machine's."""
    import psutil

    return int(psutil.virtual_memory().total) * 3 // 4


@dataclass(frozen=True, kw_only=True)
class Sandbox:
    """The limits of a sandbox: `memory` in bytes, for each process and for all of them together, and `timeout` in
    seconds. Raises InputError if no sandbox can be made on this machine."""

    memory: int
    timeout: float = TIMEOUT

    def __post_init__(self) -> None:
        tried = subprocess.run([_bwrap(), *_ALONE, "--ro-bind", "/", "/", "true"], capture_output=True, check=False)
        if tried.returncode:
            said = tried.stderr.decode(errors="replace").strip() or f"exit code {tried.returncode}"
            raise InputError(
                f"No sandbox can be made here: {printable(said)}.",
                "Usually user namespaces are off: in many containers, by sysctl, or by AppArmor on Ubuntu 24.04.",
                "Allow them for bwrap, or use a machine or a container of its own for the archive.",
            )

    @contextmanager
    def command(
        self, program: Sequence[str], *, cwd: Path, readable: Iterable[Path] = ()
    ) -> Iterator[tuple[list[str], list[int]]]:
        """The command that runs `program` in the sandbox, in the folder `cwd`, and the descriptors that it has to
        inherit. It can read that folder, `readable`, the system's programs and libraries, and what this Python
        imports."""
        bwrap = _bwrap()
        # Without it, bubblewrap before 0.7 limits them to half of the memory.
        known = subprocess.run([bwrap, "--help"], capture_output=True, text=True, check=False)
        limit = ["--size", str(DISK)] if "--size" in known.stdout + known.stderr else []
        words = [bwrap, *_ALONE, "--proc", "/proc", "--dev", "/dev", *limit, "--tmpfs", "/dev/shm"]
        words += ["--remount-ro", "/dev", *limit, "--tmpfs", "/tmp"]
        for path in _outermost({*map(Path, _SYSTEM), *_python(), cwd, *readable}):
            words += ["--ro-bind-try", str(path), str(path)]
        limits = ["/bin/sh", "-c", _LIMITED, "sh", str(self.memory // 1024), str(DISK // 512)]
        words += ["--remount-ro", "/", "--chdir", str(cwd)]
        calls = system_calls.program()
        if calls is None:
            yield [*words, "--", *limits, *program], []
            return
        with tempfile.TemporaryFile() as file:
            file.write(calls)
            file.seek(0)
            yield [*words, "--seccomp", str(file.fileno()), "--", *limits, *program], [file.fileno()]

    @staticmethod
    def environment(env: Mapping[str, str]) -> dict[str, str]:
        """A child's environment with the sandbox's folders instead of the user's."""
        kept = {name: value for name, value in env.items() if name not in _GONE}
        # Python looks for `pip install --user`'s packages in the home, unless it is told where they are.
        packages = {"PYTHONUSERBASE": site.getuserbase()} if site.ENABLE_USER_SITE else {}
        return kept | packages | {"HOME": "/tmp", "TMPDIR": "/tmp", "HF_MODULES_CACHE": "/tmp/modules"}

    def watched(self, process: subprocess.Popen[str]) -> AbstractContextManager[list[str]]:
        """Kill the sandbox when it is over a limit. The list that it yields then has the reason."""
        deadline = time.monotonic() + self.timeout

        def look() -> str | None:
            memory, processes = _used(process.pid)
            if time.monotonic() > deadline:
                return f"took longer than {self.timeout:g} seconds (--timeout)"
            if memory > self.memory:
                return f"used more than {size(self.memory)} of memory (--memory)"
            if processes > PROCESSES:
                return f"started more than {PROCESSES} processes"
            return "left this machine with less than 5% of its memory" if _hardly_any_left() else None

        # With this process, everything in the sandbox ends.
        return watching.watched(look, process.kill)


def _bwrap() -> str:
    """The path of bwrap. Raises InputError if it is not installed."""
    if found := shutil.which("bwrap"):
        return found
    raise InputError(
        "A sandbox needs bubblewrap, and there is no bwrap on PATH.",
        "Without it, an archive's code runs with your rights." if sys.platform == "linux" else "It is for Linux only.",
        "Install it: apt-get install bubblewrap (Debian, Ubuntu), dnf install bubblewrap (Fedora).",
    )


def _used(pid: int) -> tuple[int, int]:
    """The resident memory in bytes of a process with all its children, and their number."""
    import psutil

    memory = number = 0
    with suppress(psutil.Error):
        for child in psutil.Process(pid).children(recursive=True):
            number += 1
            with suppress(psutil.Error):
                memory += child.memory_info().rss
    return memory, number


def _hardly_any_left() -> bool:
    """Whether the machine's memory is nearly used up: that of the kernel for a process's sockets and pipes is not the
    process's."""
    import psutil

    memory = psutil.virtual_memory()
    return bool(memory.available < memory.total / 20)


def _python() -> set[Path]:
    """What this interpreter and its packages are in. Never a folder that the user's home or the temporary folder is in,
    nor the working folder, which `python -m` puts on the search path."""
    searched = [path for path in sys.path if path and Path(path) != Path.cwd()]
    libraries = [path for path in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep) if path]
    prefixes = [sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix]
    ours = [ROOT.parent, ROOT, ROOT / "handlers", ROOT / "configs"]
    found = {Path(path).absolute() for path in (*prefixes, *searched, *libraries)} | {*ours, *_links(sys.executable)}
    found |= {path.resolve() for path in found}
    private = {Path("~").expanduser(), Path("~").expanduser().resolve(), Path(tempfile.gettempdir()).resolve()}
    return {path for path in found if not any(folder.is_relative_to(path) for folder in private)}


def _outermost(paths: Iterable[Path]) -> list[Path]:
    """The paths that are in none of the others: what is in a read-only folder cannot be bound there once more."""
    outermost: list[Path] = []
    for path in sorted(paths):
        if not any(path.is_relative_to(other) for other in outermost):
            outermost.append(path)
    return outermost


def _links(program: str) -> Iterator[Path]:
    """A program's path, and each path that it leads to."""
    path = Path(program)
    for _ in range(40):  # as many as Linux follows
        yield path
        if not path.is_symlink():
            return
        path = Path(os.path.normpath(path.parent / path.readlink()))

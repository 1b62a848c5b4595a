"""TorchServe's own reader of archives, run on any of the Javas here."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from mar_pipeline.host.java import OLDEST, candidates, find_torchserve, java_version

_SOURCE = Path(__file__).with_name("Unpack.java")


def javas() -> list[Path]:
    """Every Java here that TorchServe can run on."""
    found = [java for _, java in candidates() if (java_version(java) or 0) >= OLDEST]
    return list({java.resolve(): java for java in found}.values())


def compiled(folder: Path) -> Path | None:
    """The class that drives TorchServe's, compiled into a folder; None without a Java compiler."""
    javac = shutil.which("javac")
    if javac is None:
        return None
    line = [javac, "--release", str(OLDEST), "-nowarn", "-d", str(folder), "-cp", _jars(), str(_SOURCE)]
    subprocess.run(line, check=True, capture_output=True)
    return folder


def _jars() -> str:
    return os.pathsep.join(map(str, (find_torchserve() / "ts" / "frontend").glob("*.jar")))


class Java:
    """A Java process that unpacks one archive after the other into a scratch folder; a context manager."""

    def __init__(self, java: Path, classes: Path, scratch: Path) -> None:
        self._line = [str(java), "-Xshare:auto", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx256m"]
        self._line += ["-Dfile.encoding=UTF-8", "-Dsun.jnu.encoding=UTF-8", "-cp", f"{classes}{os.pathsep}{_jars()}"]
        self._scratch, self._count = scratch, 0

    def __enter__(self) -> Java:
        self._process = subprocess.Popen(
            [*self._line, "Unpack"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(timeout=60)

    def files(self, archives: Sequence[Path]) -> list[dict[str, str] | None]:
        """SHA-256 by path of what TorchServe unpacks from each; None if it fails."""
        assert self._process.stdin
        assert self._process.stdout
        for archive in archives:
            self._count += 1
            self._process.stdin.write(f"{archive}\t{self._scratch / f'java-{id(self)}-{self._count}'}\n")
        self._process.stdin.flush()
        return [self._one(self._process.stdout.readline()) for _ in archives]

    @staticmethod
    def _one(line: str) -> dict[str, str] | None:
        status, *files = line.rstrip("\n").split("\t")
        if status not in ("ok", "failed"):
            raise RuntimeError("Java ended")
        pairs = [file.split("=") for file in files]
        return {bytes.fromhex(name).decode(): sha for name, sha in pairs} if status == "ok" else None

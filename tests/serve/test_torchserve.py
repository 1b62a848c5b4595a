"""`mar serve`: TorchServe on a built tree."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mar_pipeline.errors import InputError
from mar_pipeline.host.process import group_members
from mar_pipeline.serving.properties import config_properties
from mar_pipeline.serving.serve import check_ports, serve
from tests.support import ROOT


def lay_out(out: Path, archives: list[Path], **settings: str) -> Path:
    """A tree as builds make it."""
    (out / "config").mkdir(parents=True)
    (out / "model-store").mkdir()
    for archive in archives:
        copy = shutil.copytree if archive.is_dir() else shutil.copy
        copy(archive, out / "model-store" / archive.name)
    text = config_properties([path.name for path in archives], settings=settings)
    (out / "config" / "config.properties").write_text(text, encoding="utf-8")
    return out


def test_a_folder_without_a_build_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="mar build"):
        serve(tmp_path)


def test_a_pipe_in_place_of_the_settings_is_not_waited_for(tmp_path: Path) -> None:
    out = lay_out(tmp_path / "build", [])
    (out / "config" / "config.properties").unlink()
    os.mkfifo(out / "config" / "config.properties")
    with pytest.raises(InputError, match="mar build"):
        serve(out)


def test_an_empty_store_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is empty"):
        serve(lay_out(tmp_path / "build", []))


def test_a_missing_archive_is_an_error_before_anything_starts(tmp_path: Path) -> None:
    out = lay_out(tmp_path / "build", [])
    (out / "config" / "config.properties").write_text(config_properties(["gone.mar"]), encoding="utf-8")
    with pytest.raises(InputError, match=r"gone\.mar"):
        serve(out)


@pytest.mark.parametrize(
    "setting", ["inference_address", "management_address", "metrics_address", "grpc_inference_port"]
)
def test_a_taken_port_is_an_error_that_names_it_and_its_setting(setting: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        value = str(port) if setting.startswith("grpc") else f"http://127.0.0.1:{port}"
        with pytest.raises(InputError) as caught:
            check_ports({setting: value})
    assert str(port) in caught.value.what
    assert setting in caught.value.fix


def test_ports_are_looked_at_before_anything_starts(echoes: list[Path], tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(InputError, match="something listens there already"):
            serve(lay_out(tmp_path / "build", echoes[:1], metrics_address=address))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl to try the printed command with")
def test_a_moved_tree_is_served_until_ctrl_c_and_the_printed_commands_work(
    echoes: list[Path], light: dict[str, str], tmp_path: Path
) -> None:
    from mar_pipeline.serving.server import free_ports

    settings = free_ports().settings()
    built = lay_out(tmp_path / "built here", [*echoes[:1], echoes[3]], disable_system_metrics="true", **settings)
    moved = built.rename(tmp_path / "moved there")
    script = (
        "import sys; from pathlib import Path; from mar_pipeline.serving.serve import serve\n"
        "sys.exit(serve(Path(sys.argv[1]), lambda line: print(line, flush=True)))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, moved.name],
        cwd=moved.parent,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([light["PYTHONPATH"], str(ROOT)])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    with process, process.stdout:
        said = ""
        while not said.splitlines()[-1:] or not said.splitlines()[-1].startswith("curl "):
            line = process.stdout.readline()
            assert line, said
            said += line
        curl = said.splitlines()[-1]
        renew = next(line.partition(": ")[2] for line in said.splitlines() if line.startswith("A new one"))
        for command in (curl, renew, curl):
            done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=True)
            if command is curl:
                assert '"text": "a"' in done.stdout, done.stdout
        java = [
            int(folder.name)
            for folder in Path("/proc").glob("[0-9]*")
            if str(moved).encode() in _bytes(folder / "cmdline") and b"ModelServer" in _bytes(folder / "cmdline")
        ]
        assert len(java) == 1
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(60) == 0, rest
    assert "TorchServe stops." in rest
    assert group_members(java[0]) == []
    # The tree is as it was: no key, no log, no compiled module was written into it.
    assert {path.name for path in moved.iterdir()} == {"config", "model-store"}


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""

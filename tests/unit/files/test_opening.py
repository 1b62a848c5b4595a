"""Only regular files are opened, and no more of them is read than expected."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

import pytest

from mar_pipeline.files.opening import opened, read_bytes, read_text
from mar_pipeline.files.tree import scan

pytestmark = pytest.mark.timeout(20)


def pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


@pytest.mark.parametrize("through_a_link", [False, True])
def test_a_pipe_is_an_error_and_nobody_waits_for_its_writer(tmp_path: Path, through_a_link: bool) -> None:
    path = pipe(tmp_path / "pipe")
    if through_a_link:
        (tmp_path / "link").symlink_to(path)
        path = tmp_path / "link"
    for read in (opened, read_bytes, lambda file: scan(file, "x")):
        with pytest.raises(OSError, match="it is a pipe, not a file"):
            read(path)


def test_a_device_and_a_socket_are_errors() -> None:
    with pytest.raises(OSError, match="it is a device"):
        read_bytes(Path("/dev/zero"))
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{folder}/s")  # a path in pytest's own folder can be longer than a socket's may be
        with pytest.raises(OSError, match="it is a socket"):
            read_bytes(Path(folder, "s"))


def test_a_folder_and_a_missing_file_are_told_as_open_tells_them(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        opened(tmp_path)
    with pytest.raises(FileNotFoundError):
        opened(tmp_path / "none")


def test_a_sparse_file_is_not_read_beyond_what_is_expected(tmp_path: Path) -> None:
    file = tmp_path / "sparse"
    with file.open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(OSError, match="larger than 1,000 bytes"):
        read_bytes(file, 1000)


def test_a_link_is_followed_unless_it_must_not_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("é", encoding="utf-8")
    (tmp_path / "link").symlink_to("file")
    assert read_text(tmp_path / "link") == "é"
    with pytest.raises(OSError, match="symbolic links"):
        opened(tmp_path / "link", links=False)

"""S3 on the loopback: moto's server, and a proxy before it that breaks lines off, changes bytes and counts them."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

BUCKET = "models"
KEY_ID, SECRET = "AKIAOFTHETESTS000000", "a/secret+of/the/tests0000000000000000000"


def environment(address: str) -> dict[str, str]:
    """What s3fs reads."""
    return {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "1",
    }


class Server:
    """A store of its own, with an empty bucket."""

    def __init__(self, address: str) -> None:
        import boto3

        self.address = address
        self.client: Any = boto3.client(
            "s3",
            endpoint_url=address,
            aws_access_key_id=KEY_ID,
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
        )
        self.client.create_bucket(Bucket=BUCKET)

    def put(self, key: str, content: bytes, **how: str) -> None:
        self.client.put_object(Bucket=BUCKET, Key=key, Body=content, **how)

    def put_parts(self, key: str, *parts: bytes) -> None:
        """An object that comes in parts, as large ones do: its ETag is no MD5 of its contents."""
        where = {"Bucket": BUCKET, "Key": key}
        where["UploadId"] = self.client.create_multipart_upload(**where)["UploadId"]
        sent = [
            {"PartNumber": number, "ETag": self.client.upload_part(**where, PartNumber=number, Body=part)["ETag"]}
            for number, part in enumerate(parts, 1)
        ]
        self.client.complete_multipart_upload(**where, MultipartUpload={"Parts": sent})

    def add(self, prefix: str, folder: Path) -> str:
        """Upload a folder; its address."""
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                self.put(f"{prefix}/{file.relative_to(folder).as_posix()}", file.read_bytes())
        return f"s3://{BUCKET}/{prefix}"

    def remove(self, key: str) -> None:
        self.client.delete_object(Bucket=BUCKET, Key=key)


@contextmanager
def running() -> Iterator[Server]:
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield Server(f"http://{host}:{port}")
    finally:
        server.stop()


class Proxy:
    """Between a client and a server. `cuts` are how many bytes each of the next connections may bring before it is
    broken off; `pace` is bytes a second in all, None for as fast as can be; `change` is done to what the server sends;
    `answer`, if it is set, is sent instead of all that. `sent` counts what the client was sent."""

    def __init__(self, server: str) -> None:
        host, _, port = server.removeprefix("http://").partition(":")
        self._server = (host, int(port))
        self.cuts: list[int] = []
        self.pace: float | None = None
        self.change: Callable[[bytes], bytes] = lambda chunk: chunk
        self.answer: bytes | None = None
        self.sent = self.connections = 0
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        if self.answer is not None:
            with suppress(OSError), client:
                client.recv(1 << 16)
                client.sendall(self.answer)
            return
        with suppress(OSError), client, socket.create_connection(self._server) as server:
            threading.Thread(target=self._requests, args=(client, server), daemon=True).start()
            try:
                self._answers(client, server)
            finally:
                # Closing alone would wait for the thread that reads.
                for end in (client, server):
                    with suppress(OSError):
                        end.shutdown(socket.SHUT_RDWR)

    def _answers(self, client: socket.socket, server: socket.socket) -> None:
        left = self.cuts.pop(0) if self.cuts else None
        while (left is None or left > 0) and (chunk := server.recv(1 << 15)):
            chunk = chunk[:left]
            left = None if left is None else left - len(chunk)
            self._wait(len(chunk))
            client.sendall(self.change(chunk))
            with self._lock:
                self.sent += len(chunk)

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while chunk := client.recv(1 << 15):
                server.sendall(chunk)
            server.shutdown(socket.SHUT_WR)

    def _wait(self, size: int) -> None:
        if self.pace is not None:
            with self._lock:
                time.sleep(size / self.pace)


@contextmanager
def proxy(server: str) -> Iterator[Proxy]:
    found = Proxy(server)
    try:
        yield found
    finally:
        found.close()

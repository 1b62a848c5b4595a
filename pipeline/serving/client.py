"""Requests to a TorchServe on this machine, with its tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .properties import LOOPBACK, Ports

if TYPE_CHECKING:
    import httpx

KEY_FILE = "key_file.json"
"""The file that TorchServe writes its tokens to, in its working folder."""


class Client:
    """A thread-safe client of the TorchServe on `ports`. `library` is the module httpx, `key_file` the server's file of
    tokens, if it `has_keys`."""

    def __init__(self, library: Any, ports: Ports, key_file: Path, *, has_keys: bool) -> None:
        self.ports, self.key_file, self._has_keys = ports, key_file, has_keys
        self._httpx = library
        self._http: httpx.Client | None = None
        self._keys: dict[str, str] = {}

    @property
    def keys(self) -> dict[str, str]:
        """The tokens: `inference`, `management`, and `API`, which renews the others."""
        content = json.loads(self.key_file.read_text(encoding="utf-8"))
        return {kind: entry["key"] for kind, entry in content.items()}

    @property
    def address(self) -> str:
        """The inference address."""
        return f"http://{LOOPBACK}:{self.ports.inference}"

    @property
    def http(self) -> httpx.Client:
        """One HTTP client for all requests, which ignores proxy variables."""
        if self._http is None:
            limits = self._httpx.Limits(max_connections=256)
            self._http = self._httpx.Client(trust_env=False, timeout=300.0, limits=limits)
        return self._http

    def close(self) -> None:
        """Close the connections. May be called twice."""
        if self._http is not None:
            self._http.close()
            self._http = None

    def manage(self, method: str, path: str, timeout: float = 30.0) -> httpx.Response:
        """A call of the management API; `timeout` in seconds."""
        url = f"http://{LOOPBACK}:{self.ports.management}{path}"
        return self.http.request(method, url, headers=self.authorization("management"), timeout=timeout)

    def predict(
        self, name: str, body: Any, content_type: str | None = "application/json", *, path: str = "predictions"
    ) -> httpx.Response:
        """A request to the model `name`. `body` is sent unchanged if it is bytes, else as JSON; `content_type=None`
        omits the header. `path` may be `explanations`."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = self.authorization("inference")
        if content_type is not None:
            headers["Content-Type"] = content_type
        return self.http.post(f"{self.address}/{path}/{name}", content=content, headers=headers)

    def workers(self, name: str) -> list[str] | None:
        """The states of the workers of `name`; None while the server does not answer, empty if it has no such model."""
        # With authorization on, TorchServe treats a management call with "/token" in its path as a renewal of a token
        # (TokenAuthorizationHandler.java) and rejects the management key. So the first letter is percent-encoded.
        encoded = f"%{ord(name[0]):02x}{name[1:]}"
        try:
            answer = self.manage("GET", f"/models/{encoded}", timeout=3.0)
        except (OSError, ValueError, self._httpx.HTTPError):
            return None
        if answer.status_code == 404:
            return []
        if answer.status_code != 200:
            return None
        return [worker["status"] for worker in answer.json()[0]["workers"]] or ["NONE"]

    def authorization(self, kind: str) -> dict[str, str]:
        """The headers of a request, with the token of its `kind`."""
        if not self._has_keys:
            return {}
        self._keys = self._keys or self.keys
        return {"Authorization": f"Bearer {self._keys[kind]}"}

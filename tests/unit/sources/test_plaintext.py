"""Who sends a token over the network unencrypted is warned."""

from __future__ import annotations

import pytest

from mar_pipeline.sources.hub import client
from mar_pipeline.sources.transfer import plaintext

OPEN = ["http://hub.example", "HTTP://10.0.0.1:8080/x", "http://me:word@hub.example/x", "http://[2001:db8::1]/"]
SAFE = ["https://hub.example", "http://localhost:1", "http://127.0.0.1", "http://127.1.2.3:5", "http://[::1]:5",
        "http://a.localhost", "", "/mlruns", "file:///x", "http://[", "databricks"]  # fmt: skip


@pytest.mark.parametrize("address", OPEN)
def test_an_address_without_encryption_is_named_without_its_log_in(address: str) -> None:
    text = plaintext.warning(address, "Your token", "HF_ENDPOINT")
    assert text is not None
    assert "unencrypted" in text
    assert "word" not in text.replace("password", "")


@pytest.mark.parametrize("address", SAFE)
def test_an_encrypted_or_local_address_is_not(address: str) -> None:
    assert plaintext.warning(address, "Your token", "HF_ENDPOINT") is None


@pytest.mark.parametrize(
    ("token", "endpoint", "warned"),
    [
        ("hf_secret", "http://mirror.example", "Your Hugging Face token"),
        ("", "http://mirror.example", None),
        ("", "http://me:word@mirror.example", "The log-in in HF_ENDPOINT"),
        ("hf_secret", "https://mirror.example", None),
        ("hf_secret", "", None),
    ],
)
def test_only_where_something_secret_is_sent(
    monkeypatch: pytest.MonkeyPatch, token: str, endpoint: str, warned: str | None
) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: token or None)
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    said: list[str] = []
    client.warn_of_plaintext(said.append)
    assert [text[: len(warned or "")] for text in said] == ([warned] if warned else [])

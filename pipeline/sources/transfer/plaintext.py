"""Addresses to which credentials would go unencrypted."""

from __future__ import annotations

import ipaddress
from contextlib import suppress
from urllib.parse import urlsplit


def warning(address: str, secret: str, variable: str) -> str | None:
    """A warning if `address`, which `variable` sets, is http:// and not on this machine; `secret` names what is sent
    there. None if there is nothing to warn of."""
    with suppress(ValueError):
        parts = urlsplit(address)
        host = parts.hostname or ""
        if parts.scheme.lower() == "http" and not _is_here(host):
            return (
                f"{secret} goes to http://{host} unencrypted: whoever is on the way can read it, and change the model. "
                f"Use an https:// address in {variable}."
            )
    return None


def _is_here(host: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost" or host.endswith(".localhost")

"""Requests to an upstream and its answers, independent of the transport, and the errors that a call can raise."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from router.policy.address import mask_credentials
from router.policy.proxies import Proxy

Headers = list[tuple[bytes, bytes]]


class ConnectError(Exception):
    """The connection could not be established. Nothing was sent."""


class ProxyError(ConnectError):
    """A proxy cannot be reached or does not follow the protocol. The message names the proxy."""


class ProxyRefusedError(ProxyError):
    """A proxy refuses to connect to the upstream. The message names the proxy and explains its status."""

    def __init__(self, proxy: Proxy, target: str, status: int) -> None:
        self.target, self.status = target, status  # `target` is host:port
        if status == 407:
            problem = "refuses its credentials" if proxy.authorization else "asks for credentials, and none are set"
        elif status in (502, 503, 504):
            problem = f"cannot reach {target}"
        else:
            problem = f"does not allow {target}" if status == 403 else f"refuses to connect to {target}"
        super().__init__(f"the proxy {proxy.name} {problem} ({status})")


class CutError(Exception):
    """The connection was closed before the answer was complete."""


class StallError(Exception):
    """The upstream sent or accepted no data for too long."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The address of an upstream and the base path of its API."""

    host: str
    port: int
    tls: bool
    path: bytes  # without a trailing slash

    @classmethod
    def parse(cls, url: str) -> Origin:
        """Parse a base URL.

        Raises:
            ValueError: it is not an http or https URL, or it contains a user or password.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:  # whose message may contain part of a password
            host = port = None
        if not host or parts.scheme not in ("http", "https"):
            raise ValueError(f"not an http or https URL: {mask_credentials(url)!r}")
        if parts.username is not None or parts.password is not None:
            raise ValueError("an upstream's URL must not contain a user or password; set OPENAI_API_KEY or api_key")
        tls = parts.scheme == "https"
        return cls(host, port or (443 if tls else 80), tls, parts.path.rstrip("/").encode())

    @property
    def authority(self) -> bytes:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}").encode()


@dataclass(frozen=True, slots=True)
class Call:
    """A request to an upstream. The body is a sequence of pieces, or a stream."""

    method: bytes
    path: bytes  # below the base path, including the query
    headers: Headers  # without host, content-length and transfer-encoding
    body: Sequence[bytes | memoryview] | AsyncIterator[bytes] = ()
    length: int | None = None  # of a streamed body, if it is known


class Answer(Protocol):
    """An upstream's answer. The headers are complete; the body is read as it arrives."""

    status: int
    headers: Headers  # names in lower case, values as sent

    async def read(self, seconds: float) -> bytes:
        """The next bytes of the body; empty at its end.

        Raises:
            CutError: the connection was closed before the body was complete.
            StallError: nothing arrived for `seconds`.
        """

    def close(self) -> None:
        """Release the connection. If the upstream is still sending, the connection is closed."""


MAX_SHORT_BODY_BYTES = 4 * 2**20


async def read_whole(answer: Answer, seconds: float) -> bytes:
    """The whole body of an answer that is expected to be short.

    Raises:
        CutError: the connection was closed before the body was complete, or the body is too long.
        StallError: nothing arrived for `seconds`.
    """
    pieces, size = [], 0
    try:
        while piece := await answer.read(seconds):
            pieces.append(piece)
            size += len(piece)
            if size > MAX_SHORT_BODY_BYTES:
                raise CutError(f"the body is longer than {MAX_SHORT_BODY_BYTES} bytes")
    finally:
        answer.close()
    return b"".join(pieces)

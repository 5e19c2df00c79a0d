"""What is said to an upstream and what it says, whatever carries it; and the three ways in which it may fail to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from router.policy.address import mask_credentials
from router.policy.proxies import Proxy

Headers = list[tuple[bytes, bytes]]


class ConnectError(Exception):
    """No connection could be made; nothing was sent."""


class ProxyError(ConnectError):
    """A proxy cannot be reached, or does not speak as one; says which."""


class ProxyRefusedError(ProxyError):
    """A proxy does not lead to the upstream, which has heard nothing; says which proxy, and what its status means."""

    def __init__(self, proxy: Proxy, target: str, status: int) -> None:
        self.target, self.status = target, status  # as host:port
        if status == 407:
            told = "refuses its credentials" if proxy.authorization else "asks for credentials, and none are set"
        elif status in (502, 503, 504):
            told = f"cannot reach {target}"
        else:
            told = f"does not allow {target}" if status == 403 else f"gives no way to {target}"
        super().__init__(f"the proxy {proxy.name} {told} ({status})")


class CutError(Exception):
    """The connection ended before the answer did."""


class StallError(Exception):
    """The upstream said nothing for too long."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an upstream listens, and the path its API begins at."""

    host: str
    port: int
    tls: bool
    path: bytes  # without a trailing slash

    @classmethod
    def parse(cls, url: str) -> Origin:
        """Read a base URL.

        Raises:
            ValueError: it is not an http or https URL.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:  # whose text may hold a piece of a password
            host = port = None
        if not host or parts.scheme not in ("http", "https"):
            raise ValueError(f"not an http or https URL: {mask_credentials(url)!r}")
        if parts.username is not None or parts.password is not None:
            raise ValueError("an upstream's URL holds no user or password; set OPENAI_API_KEY or a model's api_key")
        tls = parts.scheme == "https"
        return cls(host, port or (443 if tls else 80), tls, parts.path.rstrip("/").encode())

    @property
    def authority(self) -> bytes:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}").encode()


@dataclass(frozen=True, slots=True)
class Call:
    """A request to an upstream. The body is pieces of known length, or a stream."""

    method: bytes
    path: bytes  # below the origin's path, with the query
    headers: Headers  # without host, content-length and transfer-encoding
    body: Sequence[bytes | memoryview] | AsyncIterator[bytes] = ()
    length: int | None = None  # of a streamed body, where it is known


class Answer(Protocol):
    """What an upstream says: a head at once, a body as it arrives."""

    status: int
    headers: Headers  # names in lower case, values as sent

    async def read(self, seconds: float) -> bytes:
        """The next bytes of the body; none at its end.

        Raises:
            CutError: the connection ended before the body did.
            StallError: nothing came for `seconds`.
        """

    def close(self) -> None:
        """Be done with it; an upstream that is still speaking is cut off."""


MOST_BYTES = 4 * 2**20


async def read_whole(answer: Answer, seconds: float) -> bytes:
    """The body of an answer that is short: a list, or what is looked up.

    Raises:
        CutError: the connection ended before the body did, or there is no end of it.
        StallError: nothing came for `seconds`.
    """
    pieces, size = [], 0
    try:
        while piece := await answer.read(seconds):
            pieces.append(piece)
            size += len(piece)
            if size > MOST_BYTES:
                raise CutError(f"it is longer than {MOST_BYTES} bytes")
    finally:
        answer.close()
    return b"".join(pieces)

"""A corporate HTTP proxy on loopback: CONNECT and absolute-form requests, credentials, and every fault.

It maps host names to ports of this machine, since a router never reaches this machine itself through a proxy.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from urllib.parse import urlsplit

from fake_openai import ReceivedRequest, read_request
from loopback import LoopbackServer, copy


class CorporateProxy(LoopbackServer):
    """Listens on a free port. `fault`: see `_connect`; None if the proxy works."""

    def __init__(self, names: Mapping[str, int], login: str = "") -> None:
        self.connects: list[ReceivedRequest] = []  # including refused ones
        self.forwarded: list[ReceivedRequest] = []
        self.fault: str | bytes | None = None  # bytes are sent instead of the answer to CONNECT
        self._names = names
        self._login = "Basic " + base64.b64encode(login.encode()).decode() if login else None
        super().__init__()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        copying: asyncio.Task[None] | None = None
        try:
            while (request := await read_request(reader)) is not None:
                connect = request.method == "CONNECT"
                (self.connects if connect else self.forwarded).append(request)
                if self._login is not None and request.header("proxy-authorization") != self._login:
                    writer.write(
                        b'HTTP/1.1 407 No\r\nproxy-authenticate: Basic realm="x"\r\ncontent-length: 2\r\n\r\nno'
                    )
                    continue
                if connect:
                    await self._connect(request, reader, writer)
                    return
                url = urlsplit(request.target)
                if upstream is None:
                    upstream = await asyncio.open_connection("127.0.0.1", self._names[url.netloc])
                    copying = asyncio.ensure_future(copy(upstream[0], writer))
                upstream[1].write(forwarded_request(request, url.path + (f"?{url.query}" if url.query else "")))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            if upstream is not None and copying is not None:
                upstream[1].close()
                await copying

    async def _connect(
        self, request: ReceivedRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Open a tunnel, or fail: cut, stall (no reply), silent (a tunnel to nowhere), a status, or custom bytes."""
        match self.fault:
            case "cut":
                return
            case "stall":
                await reader.read()
            case "silent":
                writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
                while await reader.read(65536):
                    pass
            case bytes():
                writer.write(self.fault)
                await reader.read()
            case str():
                writer.write(f"HTTP/1.1 {self.fault} Whatever\r\ncontent-length: 4\r\n\r\nsorr".encode())
                await reader.read()
            case None:
                upstream = await asyncio.open_connection("127.0.0.1", self._names[request.target])
                writer.write(b"HTTP/1.1 200 Connection established\r\nvia: 1.1 proxy\r\n\r\n")
                await asyncio.gather(copy(reader, upstream[1]), copy(upstream[0], writer))


def forwarded_request(request: ReceivedRequest, path: str) -> bytes:
    lines = [f"{request.method} {path} HTTP/1.1"]
    lines += [
        f"{name}: {value}"
        for name, value in request.headers
        if name not in ("proxy-authorization", "transfer-encoding")
    ]
    if request.header("transfer-encoding"):
        lines.append(f"content-length: {len(request.body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + request.body

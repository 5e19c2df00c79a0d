"""An HTTP proxy on loopback, as companies have them: CONNECT and absolute-form requests, credentials, and every fault.

It leads names to ports of this machine, since a router never reaches this machine itself through a proxy.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from urllib.parse import urlsplit

from fake_openai import Received, _read
from loopback import LoopbackServer, copy


class CorporateProxy(LoopbackServer):
    """Listens on a free port. `fault`: see `_connect`; None where it works."""

    def __init__(self, names: Mapping[str, int], login: str = "") -> None:
        self.connects: list[Received] = []  # as they were asked for, refused ones too
        self.forwarded: list[Received] = []
        self.fault: str | bytes | None = None  # bytes are said instead of the answer to CONNECT
        self._names = names
        self._login = "Basic " + base64.b64encode(login.encode()).decode() if login else None
        super().__init__()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        back: asyncio.Task[None] | None = None
        try:
            while (request := await _read(reader)) is not None:
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
                    back = asyncio.ensure_future(copy(upstream[0], writer))
                upstream[1].write(_passed_on(request, url.path + (f"?{url.query}" if url.query else "")))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            if upstream is not None and back is not None:
                upstream[1].close()
                await back

    async def _connect(self, request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Lead through, or: cut, stall (say nothing), silent (a tunnel to nowhere), a status, or bytes of one's own."""
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
                inner = await asyncio.open_connection("127.0.0.1", self._names[request.target])
                writer.write(b"HTTP/1.1 200 Connection established\r\nvia: 1.1 proxy\r\n\r\n")
                await asyncio.gather(copy(reader, inner[1]), copy(inner[0], writer))


def _passed_on(request: Received, path: str) -> bytes:
    lines = [f"{request.method} {path} HTTP/1.1"]
    lines += [f"{n}: {v}" for n, v in request.headers if n not in ("proxy-authorization", "transfer-encoding")]
    if request.header("transfer-encoding"):
        lines.append(f"content-length: {len(request.body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + request.body

"""A tunnel through an HTTP proxy (CONNECT, RFC 9110 section 9.3.6)."""

from __future__ import annotations

import asyncio
import re
import socket

from router.policy.proxies import Proxy
from router.upstream.calls import Origin, ProxyError, ProxyRefusedError

MAX_HEAD_BYTES = 16 * 1024  # of a proxy's response to CONNECT
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: [^\r\n]*+)?\r?\n")
_END = re.compile(rb"\r?\n\r?\n")


class Tunnel(asyncio.Protocol):
    """The connection to a proxy until the proxy responds to CONNECT."""

    def __init__(self) -> None:
        self._received = b""
        self._answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.has_extra_data = False  # whether the proxy sent more than its response

    def data_received(self, data: bytes) -> None:
        """Receive a piece of the response."""
        if self._answer.done():
            self.has_extra_data = True
            return
        end = _END.search(self._received + data, max(len(self._received) - 3, 0))
        self._received += data
        if end is not None and end.end() <= MAX_HEAD_BYTES:
            self.has_extra_data = end.end() < len(self._received)
            self._answer.set_result(self._received[: end.end()])
        elif len(self._received) > MAX_HEAD_BYTES:
            self._fail("responds to CONNECT with headers that are too long")

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  the signature is the loop's
        """Report that the proxy closed the connection."""
        self._fail("closed the connection after CONNECT")

    async def answer(self) -> bytes:
        """The head of the proxy's response.

        Raises:
            ProxyError: the response is missing or too long.
        """
        return await self._answer

    def _fail(self, why: str) -> None:
        if not self._answer.done():
            self._answer.set_exception(ProxyError(why))


async def open_tunnel(proxy: Proxy, origin: Origin, opened: socket.socket) -> asyncio.Transport:
    """Open a tunnel to `origin` through the proxy that `opened` is connected to. On failure `opened` is closed.

    Raises:
        ProxyError, ProxyRefusedError: the proxy does not open the tunnel.
        UnicodeError: the origin's host is not a valid host name.
    """
    loop = asyncio.get_running_loop()
    transport, tunnel = await loop.create_connection(Tunnel, sock=opened)
    try:
        transport.write(_request(proxy, origin))
        try:
            head = await tunnel.answer()
        except ProxyError as error:
            raise ProxyError(f"the proxy {proxy.name} {error}") from None
        match = _STATUS.match(head)
        if match is None:
            raise ProxyError(f"the proxy {proxy.name} does not respond to CONNECT in HTTP/1.1")
        status = int(match[1])
        if not 200 <= status < 300:
            raise ProxyRefusedError(proxy, _target(origin).decode(), status)
        if tunnel.has_extra_data:
            raise ProxyError(f"the proxy {proxy.name} sent data after its response to CONNECT")
    except BaseException:
        transport.abort()
        raise
    return transport


def _request(proxy: Proxy, origin: Origin) -> bytes:
    target = _target(origin)
    login = b"proxy-authorization: %b\r\n" % proxy.authorization if proxy.authorization else b""
    return b"CONNECT %b HTTP/1.1\r\nhost: %b\r\n%b\r\n" % (target, target, login)


def _target(origin: Origin) -> bytes:
    host = b"[%b]" % origin.host.encode() if ":" in origin.host else origin.host.encode("idna")
    return b"%b:%d" % (host, origin.port)

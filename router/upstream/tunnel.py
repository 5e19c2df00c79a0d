"""A tunnel through a proxy (CONNECT, RFC 9110 section 9.3.6): asked for, bounded, and empty when TLS begins."""

from __future__ import annotations

import asyncio
import re
import socket

from router.policy.proxies import Proxy
from router.upstream.calls import Origin, ProxyError, ProxyRefusedError

MAX_HEAD = 16 * 1024  # bytes of a proxy's answer to CONNECT
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: [^\r\n]*+)?\r?\n")
_END = re.compile(rb"\r?\n\r?\n")


class Tunnel(asyncio.Protocol):
    """The connection to a proxy until it has answered."""

    def __init__(self) -> None:
        self._heard = b""
        self._answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.surplus = False  # the proxy spoke beyond its answer

    def data_received(self, data: bytes) -> None:
        """A piece of the answer."""
        if self._answer.done():
            self.surplus = True
            return
        end = _END.search(self._heard + data, max(len(self._heard) - 3, 0))
        self._heard += data
        if end is not None and end.end() <= MAX_HEAD:
            self.surplus = end.end() < len(self._heard)
            self._answer.set_result(self._heard[: end.end()])
        elif len(self._heard) > MAX_HEAD:
            self._fail("answers CONNECT with headers that are too long")

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  the signature is the loop's
        """The proxy hung up."""
        self._fail("hung up when it was asked to CONNECT")

    async def answer(self) -> bytes:
        """The head of the proxy's answer.

        Raises:
            ProxyError: there is none.
        """
        return await self._answer

    def _fail(self, why: str) -> None:
        if not self._answer.done():
            self._answer.set_exception(ProxyError(why))


async def tunnelled(proxy: Proxy, origin: Origin, opened: socket.socket) -> asyncio.Transport:
    """Ask the proxy at the other end of `opened` for a tunnel to `origin`; closes everything where there is none.

    Raises:
        ProxyError, ProxyRefusedError: the proxy gives no tunnel.
        UnicodeError: the name can be no host's.
    """
    loop = asyncio.get_running_loop()
    transport, tunnel = await loop.create_connection(Tunnel, sock=opened)
    try:
        transport.write(_request(proxy, origin))
        try:
            head = await tunnel.answer()
        except ProxyError as error:
            raise ProxyError(f"the proxy {proxy.name} {error}") from None
        found = _STATUS.match(head)
        if found is None:
            raise ProxyError(f"the proxy {proxy.name} does not answer CONNECT in HTTP/1.1")
        status = int(found[1])
        if not 200 <= status < 300:
            raise ProxyRefusedError(proxy, _target(origin).decode(), status)
        if tunnel.surplus:
            raise ProxyError(f"the proxy {proxy.name} said more than its answer to CONNECT")
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

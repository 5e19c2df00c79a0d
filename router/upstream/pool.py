"""A pool of connections to the upstreams."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator

from router.policy.network import BundleError, Network
from router.policy.proxies import Proxy, ProxyAddressError
from router.upstream.calls import Answer, Call, ConnectError, CutError, Origin, ProxyError
from router.upstream.connection import Connection
from router.upstream.sockets import connect
from router.upstream.tunnel import open_tunnel


class Pool:
    """Reuses idle connections. A new connection is opened directly or through a proxy."""

    def __init__(self, connect_seconds: float, network: Network | None = None) -> None:
        self._connect_seconds = connect_seconds
        self._network = network or Network()
        self._idle: dict[Origin, deque[Connection]] = {}
        self._tls: ssl.SSLContext | None = None

    async def send(self, origin: Origin, call: Call, seconds: float) -> Answer:
        """Send `call` and wait for the headers of its answer, at most `seconds`.

        Raises:
            ConnectError, CutError, StallError: see `upstream.calls`.
        """
        idle = self._idle.setdefault(origin, deque())
        streamed = isinstance(call.body, AsyncIterator)
        if streamed and idle:  # it cannot be sent twice, so it needs a new connection
            idle.popleft().abort()
        while idle and not streamed:
            connection = idle.pop()
            if not connection.usable:
                connection.abort()
                continue
            try:
                await connection.exchange(origin, call, seconds)
            except CutError:
                if connection.has_response:
                    raise
                break  # the upstream closed the idle connection before it read the request
            return connection
        connection = await self._connect(origin, idle)
        await connection.exchange(origin, call, seconds)
        return connection

    async def _connect(self, origin: Origin, idle: deque[Connection]) -> Connection:
        proxy = None
        try:
            proxy = self._network.proxies.proxy_for(origin.host, origin.port, tls=origin.tls)
            async with asyncio.timeout(self._connect_seconds):
                return await (
                    self._connect_directly(origin, idle)
                    if proxy is None
                    else self._connect_through(proxy, origin, idle)
                )
        except TimeoutError as error:
            raise ConnectError(f"no connection within {self._connect_seconds:g} s{_via(proxy)}") from error
        except (OSError, UnicodeError, ProxyAddressError, BundleError) as error:
            raise ConnectError(f"{error or type(error).__name__}{_via(proxy)}") from error

    async def _connect_directly(self, origin: Origin, idle: deque[Connection]) -> Connection:
        tls = self._context() if origin.tls else None
        opened = await connect(origin.host, origin.port)
        name = origin.host if origin.tls else None
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            lambda: Connection(idle), sock=opened, ssl=tls, server_hostname=name
        )
        return connection

    async def _connect_through(self, proxy: Proxy, origin: Origin, idle: deque[Connection]) -> Connection:
        loop = asyncio.get_running_loop()
        tls = self._context() if origin.tls else None
        try:
            opened = await connect(proxy.host, proxy.port)
        except OSError as error:
            raise ProxyError(f"the proxy {proxy.name} cannot be reached: {error}") from error
        if tls is None:
            _, connection = await loop.create_connection(lambda: Connection(idle, proxy), sock=opened)
            return connection
        outer = await open_tunnel(proxy, origin, opened)
        connection = Connection(idle)
        try:
            inner = await loop.start_tls(outer, connection, tls, server_hostname=origin.host)
        except BaseException:
            outer.abort()
            raise
        assert inner is not None
        connection.connection_made(inner)
        return connection

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = self._network.ssl_context()
        return self._tls

    def close(self) -> None:
        """Close the idle connections."""
        for idle in self._idle.values():
            while idle:
                idle.pop().abort()


def _via(proxy: Proxy | None) -> str:
    return "" if proxy is None else f" (through the proxy {proxy.name})"

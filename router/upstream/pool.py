"""Connections to every upstream, kept for the next exchange."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator

from router.upstream.calls import Answer, Call, ConnectError, CutError, Origin
from router.upstream.connection import Connection


class Pool:
    """Connections to every origin, kept for the next exchange."""

    def __init__(self, connect_seconds: float) -> None:
        self._connect_seconds = connect_seconds
        self._idle: dict[Origin, deque[Connection]] = {}
        self._tls: ssl.SSLContext | None = None

    async def send(self, origin: Origin, call: Call, seconds: float) -> Answer:
        """Send `call`; the answer's head is there when this returns.

        Raises:
            ConnectError, CutError, StallError: as their names say.
        """
        idle = self._idle.setdefault(origin, deque())
        streamed = isinstance(call.body, AsyncIterator)
        if streamed and idle:  # it cannot be sent twice, so it takes a connection that nobody hangs up on meanwhile
            idle.popleft().abort()
        while idle and not streamed:
            connection = idle.pop()
            if not connection.usable:
                connection.abort()
                continue
            try:
                await connection.exchange(origin, call, seconds)
            except CutError:
                if connection.heard:
                    raise
                break  # an upstream may hang up on a connection at rest just as we speak: it has not heard us
            return connection
        connection = await self._connect(origin, idle)
        await connection.exchange(origin, call, seconds)
        return connection

    async def _connect(self, origin: Origin, idle: deque[Connection]) -> Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_seconds):
                _, connection = await loop.create_connection(
                    lambda: Connection(idle), origin.host, origin.port, ssl=self._context() if origin.tls else None
                )
        except TimeoutError as error:
            raise ConnectError(f"no connection within {self._connect_seconds:g} s") from error
        except (OSError, UnicodeError) as error:
            raise ConnectError(str(error)) from error
        return connection

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls

    def close(self) -> None:
        """Close the connections at rest."""
        for idle in self._idle.values():
            while idle:
                idle.pop().abort()

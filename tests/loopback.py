"""A server on loopback that runs beside a test, in a thread of its own, and leaves nothing behind when it is closed."""

from __future__ import annotations

import asyncio
import ssl
import threading
from abc import ABC, abstractmethod
from typing import Any


class LoopbackServer(ABC):
    """Listens on a free port, or on the one given; what a connection gets to hear is `serve`'s to say."""

    host = "127.0.0.1"

    def __init__(self, context: ssl.SSLContext | None = None, port: int = 0) -> None:
        self._open: set[asyncio.BaseTransport] = set()
        started = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._listen(context, port, started),), daemon=True)
        self._thread.start()
        assert started.wait(10), "the server did not start"

    @abstractmethod
    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Speak with one client."""

    @property
    def open_connections(self) -> int:
        """How many are open."""
        return len(self._open)

    def close(self) -> None:
        """Break off every connection, and come back when nothing of them is left."""
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(10)
        assert not self._thread.is_alive(), "the server did not end"

    async def _listen(self, context: ssl.SSLContext | None, port: int, started: threading.Event) -> None:
        self._loop, self._closing = asyncio.get_running_loop(), asyncio.Event()
        self._loop.set_exception_handler(_told)
        server = await self._loop.create_server(lambda: _Connection(self), self.host, port, ssl=context)
        self.port: int = server.sockets[0].getsockname()[1]
        started.set()
        await self._closing.wait()
        await self._end()
        server.close()  # last: a connection that is being accepted by a closed server is left half made

    async def _end(self) -> None:
        """Cancels nothing: a task that has not begun would leave its socket open. Their connections gone, all end."""
        quiet = 0  # a connection may be anywhere between accepted and closed, so this asks until there is none
        while quiet < 3:
            for transport in self._open:
                transport.abort()  # type: ignore[attr-defined]  # which a stream's transport has
            await asyncio.sleep(0.001)
            quiet = 0 if self._open or len(asyncio.all_tasks()) > 1 else quiet + 1


async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Hand on what arrives until its end, and then close the other side."""
    try:
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    except OSError:
        pass
    finally:
        sink.close()


def _told(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Connections that break off are what tests make; all else is told."""
    if not isinstance(context.get("exception"), OSError):
        loop.default_exception_handler(context)


class _Connection(asyncio.StreamReaderProtocol):
    def __init__(self, server: LoopbackServer) -> None:
        super().__init__(asyncio.StreamReader(), server.serve)
        self._all = server._open

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._mine = transport
        self._all.add(transport)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._all.discard(self._mine)
        super().connection_lost(exc)

"""A server on loopback that runs in its own thread and releases every resource when it is closed."""

from __future__ import annotations

import asyncio
import ssl
import threading
from abc import ABC, abstractmethod
from typing import Any


class LoopbackServer(ABC):
    """Listens on a free port or on `port`; `serve` handles each connection."""

    host = "127.0.0.1"

    def __init__(self, context: ssl.SSLContext | None = None, port: int = 0) -> None:
        self._open: set[asyncio.BaseTransport] = set()
        started = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._listen(context, port, started),), daemon=True)
        self._thread.start()
        assert started.wait(10), "the server did not start"

    @abstractmethod
    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Handle one connection."""

    @property
    def open_connections(self) -> int:
        """The number of open connections."""
        return len(self._open)

    def close(self) -> None:
        """Abort every connection, and return when all have ended."""
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(10)
        assert not self._thread.is_alive(), "the server did not end"

    async def _listen(self, context: ssl.SSLContext | None, port: int, started: threading.Event) -> None:
        self._loop, self._closing = asyncio.get_running_loop(), asyncio.Event()
        self._loop.set_exception_handler(_handle_exception)
        server = await self._loop.create_server(lambda: _Connection(self), self.host, port, ssl=context)
        self.port: int = server.sockets[0].getsockname()[1]
        started.set()
        await self._closing.wait()
        await self._end()
        server.close()  # last: a closed server would leave a connection that it is accepting half open

    async def _end(self) -> None:
        """Abort connections until all tasks have ended.

        Cancelling them is no alternative: a task that has not begun would leave its socket open.
        """
        idle_checks = 0  # a connection may be between accepted and closed, so check three times
        while idle_checks < 3:
            for transport in self._open:
                transport.abort()  # type: ignore[attr-defined]  # a stream's transport has it
            await asyncio.sleep(0.001)
            idle_checks = 0 if self._open or len(asyncio.all_tasks()) > 1 else idle_checks + 1


async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Copy bytes until the source ends, then close the sink."""
    try:
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    except OSError:
        pass
    finally:
        sink.close()


def _handle_exception(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Ignore broken connections, which tests cause on purpose; report all other exceptions."""
    if not isinstance(context.get("exception"), OSError):
        loop.default_exception_handler(context)


class _Connection(asyncio.StreamReaderProtocol):
    def __init__(self, server: LoopbackServer) -> None:
        super().__init__(asyncio.StreamReader(), server.serve)
        self._open_transports = server._open

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._own_transport = transport
        self._open_transports.add(transport)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._open_transports.discard(self._own_transport)
        super().connection_lost(exc)

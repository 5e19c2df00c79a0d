"""A router that runs, and the raw exchanges with it: what it answers, and whether it logs a traceback."""

from __future__ import annotations

import contextlib
import logging
import socket
import tempfile
import time
from pathlib import Path
from typing import Any, Self

import httptools
from running import RunningRouter

from router import server
from router.client import protocol
from router.endpoints import accounts

SECONDS = 5.0  # within which every exchange ends
QUIET_SECONDS = 0.02  # after which nothing more is expected of an answer
SHORT_SECONDS = 1.0  # all patience of the router, so that its ends are seen
LOGGERS = ("", "uvicorn.error", "asyncio", "router")


class HangError(AssertionError):
    """An exchange does not end."""


class _Tracebacks(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep what tells of an exception."""
        if record.exc_info or "Exception in" in record.getMessage():
            self.found.append(self.format(record))


class Running:
    """A router with short timeouts in front of an upstream."""

    def __init__(self, upstream_port: int) -> None:
        self._home = tempfile.TemporaryDirectory()
        self._patience = protocol.HEAD_SECONDS, server.KEEP_ALIVE_SECONDS, accounts.READ_SECONDS
        _be_patient(SHORT_SECONDS, SHORT_SECONDS, SHORT_SECONDS)
        timeouts = dict.fromkeys(("first_byte", "idle", "request_body", "retries"), SHORT_SECONDS)
        url = f"http://127.0.0.1:{upstream_port}/v1"
        self._router = RunningRouter(Path(self._home.name), openai_base_url=url, timeouts=timeouts, max_attempts=1)
        self._tracebacks = _Tracebacks()
        self._levels = {name: logging.getLogger(name).level for name in LOGGERS}
        for name in LOGGERS:
            logging.getLogger(name).addHandler(self._tracebacks)
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        logging.getLogger("uvicorn.error").propagate = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        for name in LOGGERS:
            logging.getLogger(name).removeHandler(self._tracebacks)
        logging.getLogger("uvicorn.error").setLevel(self._levels["uvicorn.error"])
        logging.getLogger("uvicorn.error").propagate = True
        self._router.close()
        _be_patient(*self._patience)
        self._home.cleanup()

    def ask(self, data: bytes, *, leave: bool = False) -> bytes:
        """Send bytes; what comes back until the router closes the connection.

        With `leave` the client closes its half once nothing more is to be expected, and the router has to follow.
        """
        deadline = time.monotonic() + SECONDS
        reply = bytearray()
        with socket.create_connection(("127.0.0.1", self._router.port), timeout=SECONDS) as connection:
            try:
                connection.sendall(data)
                if leave:
                    self._listen(connection, reply, deadline, complete=requests_in(data) > 0)
                    connection.shutdown(socket.SHUT_WR)
                while piece := _received(connection, deadline - time.monotonic()):
                    reply += piece
            except ConnectionError:
                pass  # a router that hangs up while it is spoken to
            except TimeoutError:
                raise HangError(f"no end after {SECONDS:g} s; heard {bytes(reply[:300])!r}") from None
        return bytes(reply)

    def _listen(self, connection: socket.socket, reply: bytearray, deadline: float, *, complete: bool) -> None:
        """Listen until it is quiet; a request that is complete is answered first."""
        while True:
            awaited = complete and not reply
            try:
                piece = _received(connection, deadline - time.monotonic() if awaited else QUIET_SECONDS)
            except TimeoutError:
                if awaited:
                    raise
                return
            if not piece:
                return
            reply += piece

    def faults(self) -> list[str]:
        """The tracebacks since the last look."""
        tracebacks, self._tracebacks.found = self._tracebacks.found, []
        return tracebacks


def _be_patient(head: float, keep_alive: float, body: float) -> None:
    """Set what no setting sets: how many seconds the router waits for a head, the next request, a short body."""
    protocol.HEAD_SECONDS = head
    server.KEEP_ALIVE_SECONDS = keep_alive  # type: ignore[assignment]  # uvicorn takes parts of a second as well
    accounts.READ_SECONDS = body


def _received(connection: socket.socket, seconds: float) -> bytes:
    if seconds <= 0:
        raise TimeoutError
    connection.settimeout(seconds)
    return connection.recv(65536)


class _Counting:
    complete = 0

    def on_message_complete(self) -> None:
        self.complete += 1


def requests_in(data: bytes) -> int:
    """How many complete requests bytes begin with."""
    counting = _Counting()
    with contextlib.suppress(httptools.HttpParserError, httptools.HttpParserUpgrade):
        httptools.HttpRequestParser(counting).feed_data(data)
    return counting.complete


def request(path: bytes, body: bytes = b"", method: bytes = b"POST", *headers: bytes) -> bytes:
    """A request as a client sends it; it asks for the connection to be closed unless `headers` say something."""
    lines = (b"host: localhost", b"content-length: %d" % len(body), *(headers or (b"connection: close",)))
    return b"%b %b HTTP/1.1\r\n%b\r\n\r\n%b" % (method, path, b"\r\n".join(lines), body)

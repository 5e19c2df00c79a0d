"""A single call to a server that is not part of a client's request. One timeout covers the whole call.

Redirects are not followed.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from datetime import UTC
from email.utils import parsedate_to_datetime

from router.policy.network import Network
from router.upstream.calls import Call, ConnectError, CutError, Headers, Origin, StallError, read_whole
from router.upstream.pool import Pool

TIMEOUT_SECONDS = 5.0
CONNECT_SECONDS = 4.0  # less than TIMEOUT_SECONDS, so that the error says that connecting took too long


@dataclass(frozen=True, slots=True)
class ServerResponse:
    """The response of a server, and the time at which its headers arrived."""

    status: int
    headers: Headers
    body: bytes
    unix_seconds: float

    @property
    def date(self) -> float | None:
        """The server's `Date` header, in seconds since 1970; None if it is missing or malformed."""
        value = dict(self.headers).get(b"date", b"").decode("latin-1")
        try:
            date = parsedate_to_datetime(value)
        except ValueError:
            return None
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()


class NoResponseError(Exception):
    """A server did not respond. The message says why."""


def get(origin: Origin, path: bytes, authorization: bytes | None, network: Network) -> ServerResponse:
    """Send a GET request as the router sends requests to its upstreams.

    Raises:
        NoResponseError: no complete response arrived within `TIMEOUT_SECONDS`.
    """
    headers = [] if authorization is None else [(b"authorization", authorization)]
    return send(origin, Call(b"GET", path, headers), network)


def send(origin: Origin, call: Call, network: Network) -> ServerResponse:
    """Send one call. Must not be called in an event loop.

    Raises:
        NoResponseError: no complete response arrived within `TIMEOUT_SECONDS`.
    """

    async def exchange() -> ServerResponse:
        pool = Pool(CONNECT_SECONDS, network)
        common = [(b"accept-encoding", b"identity"), (b"user-agent", b"calibrated-router")]
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                request = replace(call, headers=[*common, *call.headers])
                answer = await pool.send(origin, request, TIMEOUT_SECONDS)
                now = time.time()
                return ServerResponse(answer.status, answer.headers, await read_whole(answer, TIMEOUT_SECONDS), now)
        finally:
            pool.close()

    try:
        return asyncio.run(exchange())
    except TimeoutError:
        raise NoResponseError(f"no answer within {TIMEOUT_SECONDS:g} s") from None
    except (ConnectError, CutError, StallError) as error:
        raise NoResponseError(f"no answer: {error}") from error

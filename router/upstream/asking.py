"""One call to a server outside of any request, with one clock for all of it; it follows no redirect."""

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
CONNECT_SECONDS = 4.0  # of these, so that what is too slow has a name


@dataclass(frozen=True, slots=True)
class Heard:
    """What a server answered, and the moment its head was there."""

    status: int
    headers: Headers
    body: bytes
    unix_seconds: float

    @property
    def date(self) -> float | None:
        """The server's clock, in seconds since 1970; None where it tells none."""
        value = dict(self.headers).get(b"date", b"").decode("latin-1")
        try:
            told = parsedate_to_datetime(value)
        except ValueError:
            return None
        return (told if told.tzinfo else told.replace(tzinfo=UTC)).timestamp()


class SilentError(Exception):
    """A server gave no answer; says why."""


def get(origin: Origin, path: bytes, authorization: bytes | None, network: Network) -> Heard:
    """Ask as the router itself asks its upstreams.

    Raises:
        SilentError: no whole answer came within `TIMEOUT_SECONDS`.
    """
    headers = [] if authorization is None else [(b"authorization", authorization)]
    return ask(origin, Call(b"GET", path, headers), network)


def ask(origin: Origin, call: Call, network: Network) -> Heard:
    """Send one call, to be called where no event loop runs.

    Raises:
        SilentError: no whole answer came within `TIMEOUT_SECONDS`.
    """

    async def exchange() -> Heard:
        pool = Pool(CONNECT_SECONDS, network)
        common = [(b"accept-encoding", b"identity"), (b"user-agent", b"calibrated-router")]
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                sent = replace(call, headers=[*common, *call.headers])
                answer = await pool.send(origin, sent, TIMEOUT_SECONDS)
                now = time.time()
                return Heard(answer.status, answer.headers, await read_whole(answer, TIMEOUT_SECONDS), now)
        finally:
            pool.close()

    try:
        return asyncio.run(exchange())
    except TimeoutError:
        raise SilentError(f"no answer within {TIMEOUT_SECONDS:g} s") from None
    except (ConnectError, CutError, StallError) as error:
        raise SilentError(f"no answer: {error}") from error

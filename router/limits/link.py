"""The connection to Redis: one for each worker. What is asked at the same time is sent together, and in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Protocol

from router.lifetime import running
from router.policy.address import mask_credentials
from router.policy.network import Network
from router.settings import SettingsError

if TYPE_CHECKING:
    from redis.asyncio.connection import Connection

log = logging.getLogger("router")
CALL_SECONDS = 0.25
CONNECT_SECONDS = 1.0
GATHER_SECONDS = 0.02  # how long what nobody waits for is gathered
IDLE_SECONDS = 1.0  # between looks at whether a connection at rest is still there
BACKOFF_SECONDS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.0)  # between attempts to connect
MOST_AT_ONCE = 200  # calls sent together
MOST_WAITING = 100_000  # calls that wait for Redis to come back
EXTRA = "calibrated-router[redis]"
_jitter = random.Random()  # noqa: S311  keeps workers apart, and is no secret


class AwayError(Exception):
    """Redis does not answer in time, or answers with an error."""


class Call(Protocol):
    """One call of the script."""

    lasting: bool  # sent again until it is through; else it fails where Redis is away

    @property
    def keys(self) -> tuple[str, ...]:
        """Three in Redis for each account."""

    def arguments(self, run: str) -> Sequence[str | bytes | int]:
        """What the script is given; `run` names this start of Redis."""

    def answered(self, answer: list[Any]) -> None:
        """Take the answer."""

    def failed(self) -> None:
        """Know that Redis is away."""


class Link:
    """Sends calls while `run` runs."""

    def __init__(self, url: str, network: Network) -> None:
        """`url` is that of Redis.

        Raises:
            SettingsError: the client of Redis is not installed.
        """
        try:
            import redis.asyncio  # noqa: F401  loaded where ROUTER_STATE is set
            from hiredis import pack_command
        except ImportError as error:
            raise SettingsError(f"setting ROUTER_STATE: needs `pip install {EXTRA}`, which has {error.name}") from None
        self._pack: Callable[[Any], bytes] = pack_command
        self.address = mask_credentials(url)
        self.problem = ""  # why Redis is away, or nothing
        self.dropped = 0  # lasting calls that there was no room for
        self._url, self._network = url, network
        self._script = files("router.limits").joinpath("state.lua").read_bytes()
        self._digest = b""
        self._run = ""
        self._calls: deque[Call] = deque()
        self._sending: list[Call] = []
        self._work = asyncio.Event()
        self._gathering: asyncio.TimerHandle | None = None
        self._connection: Connection | None = None

    def send(self, call: Call) -> None:
        """Send a call soon, at once where it does not last.

        Raises:
            AwayError: it does not last, and Redis is away.
        """
        if not call.lasting:
            if self.problem:
                raise AwayError(self.problem)
            self._calls.append(call)
            self._work.set()
            return
        if len(self._calls) >= MOST_WAITING:
            self.dropped += 1  # its hold lapses, and counts as spent in full
            return
        self._calls.append(call)
        if self._gathering is None:
            self._gathering = asyncio.get_running_loop().call_later(GATHER_SECONDS, self._gathered)

    def _gathered(self) -> None:
        self._gathering = None
        self._work.set()

    async def run(self) -> None:
        """Connect, send what is to be sent, and connect again after an error, for ever."""
        async with running(self._try_for_ever()):
            await self._send_for_ever()

    async def _try_for_ever(self) -> None:
        """Have a connection at rest say that it is there."""
        while True:
            await asyncio.sleep(IDLE_SECONDS)
            self._work.set()

    async def _send_for_ever(self) -> None:
        failures = 0
        while True:
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    connection = await self._connect()
                if self.problem:
                    log.warning("Redis at %s is back", self.address)
                self.problem, failures = "", 0
                self._work.set()
                while True:
                    await self._work.wait()
                    async with asyncio.timeout(CALL_SECONDS):
                        await self._exchange(connection)
            except Exception as error:  # whatever it is, Redis is away until it answers again
                self._away(error)
            finally:
                await self._disconnect()
            await asyncio.sleep(BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS) - 1)] * _jitter.uniform(0.5, 1.0))
            failures += 1

    async def drain(self, seconds: float) -> None:
        """Wait until all was sent, at most so long."""
        deadline = time.monotonic() + seconds
        # polled, since it is once and at the end
        while (self._calls or self._sending) and not self.problem and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(GATHER_SECONDS)

    async def _connect(self) -> Connection:
        self._connection = connection = connect(self._url, self._network)
        await connection.connect()  # type: ignore[no-untyped-call]
        await connection.send_command("INFO", "server")
        told: bytes = await connection.read_response()
        lines = (line.partition(b":") for line in told.splitlines())
        self._run = next((value.decode() for name, _, value in lines if name == b"run_id"), "")
        await connection.send_command("SCRIPT", "LOAD", self._script)
        self._digest = await connection.read_response()
        return connection

    async def _exchange(self, connection: Connection) -> None:
        """Send what waits in one message, and read the answers."""
        self._work.clear()
        while len(self._sending) < MOST_AT_ONCE and self._calls:
            self._sending.append(self._calls.popleft())
        if self._calls:
            self._work.set()
        if not self._sending:
            await connection.send_command("PING")
            await connection.read_response()
            return
        run, digest, pack = self._run, self._digest, self._pack
        calls = [pack(("EVALSHA", digest, len(call.keys), *call.keys, *call.arguments(run))) for call in self._sending]
        await connection.send_packed_command(b"".join(calls), check_health=False)
        answers = [await connection.read_response() for _ in calls]
        sent, self._sending = self._sending, []
        for call, answer in zip(sent, answers, strict=True):
            call.answered(answer)

    def _away(self, error: Exception) -> None:
        # the text of an error may hold what was sent, so that its kind has to do
        problem = "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__
        if not self.problem:
            log.error("Redis at %s is away: %s", self.address, problem)
        self.problem = problem
        waiting = [*self._sending, *self._calls]
        self._sending, self._calls = [], deque(call for call in waiting if call.lasting)
        for call in waiting:
            call.failed()

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):  # whatever it is, the connection is not used again
                await connection.disconnect(nowait=True)


def connect(url: str, network: Network) -> Connection:
    """A connection that tries once. What `network` trusts counts, unless the URL says (`ssl_ca_certs`)."""
    from redis.asyncio.connection import ConnectionPool, SSLConnection
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    retry = Retry(NoBackoff(), 0)
    pool: Any = ConnectionPool.from_url(
        url, socket_connect_timeout=CONNECT_SECONDS, socket_timeout=None, retry=retry, protocol=2
    )
    made: Connection = pool.make_connection()
    if isinstance(made, SSLConnection) and network.bundle is not None and made.ca_certs is None:
        made.ssl_context.context = network.ssl_context()
    return made


async def check(url: str, network: Network, seconds: float) -> None:
    """Connect, and run a script.

    Raises:
        redis.exceptions.RedisError, OSError, TimeoutError, ImportError: that does not work.
    """
    async with asyncio.timeout(seconds):
        connection = connect(url, network)
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            await connection.send_command("EVAL", "return 1", 0)
            await connection.read_response()
        finally:
            await connection.disconnect()

"""The Redis connection of one worker. It pipelines concurrent calls and keeps their order."""

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
GATHER_SECONDS = 0.02  # how long calls without a waiting request are batched
IDLE_SECONDS = 1.0  # between checks of an idle connection
BACKOFF_SECONDS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.0)  # between connection attempts
MAX_PIPELINED = 200  # calls per pipeline
MAX_QUEUED = 100_000  # calls that are queued while Redis is unavailable
EXTRA = "calibrated-router[redis]"
_jitter = random.Random()  # noqa: S311  jitter needs no secure randomness


class AwayError(Exception):
    """Redis does not respond in time, or responds with an error."""


class Call(Protocol):
    """One call of the script."""

    lasting: bool  # whether it is queued and sent again while Redis is unavailable; otherwise it fails then

    @property
    def keys(self) -> tuple[str, ...]:
        """The Redis keys: three for each account."""

    def arguments(self, run: str) -> Sequence[str | bytes | int]:
        """The arguments of the script; `run` is the run id of the Redis server."""

    def answered(self, answer: list[Any]) -> None:
        """Handle the response."""

    def failed(self) -> None:
        """Handle that Redis is unavailable."""


class Link:
    """Sends calls while `run` is running."""

    def __init__(self, url: str, network: Network) -> None:
        """`url` is the address of Redis.

        Raises:
            SettingsError: the Redis client is not installed.
        """
        try:
            import redis.asyncio  # noqa: F401  only required if ROUTER_STATE is set
            from hiredis import pack_command
        except ImportError as error:
            raise SettingsError(
                f"setting ROUTER_STATE: the module {error.name} is missing; run `pip install {EXTRA}`"
            ) from None
        self._pack: Callable[[Any], bytes] = pack_command
        self.address = mask_credentials(url)
        self.problem = ""  # why Redis is unavailable; empty if it is available
        self.dropped = 0  # lasting calls that were dropped because the queue was full
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
        """Queue a call. A lasting call is batched for up to GATHER_SECONDS; others are sent immediately.

        Raises:
            AwayError: the call is not lasting and Redis is unavailable.
        """
        if not call.lasting:
            if self.problem:
                raise AwayError(self.problem)
            self._calls.append(call)
            self._work.set()
            return
        if len(self._calls) >= MAX_QUEUED:
            self.dropped += 1  # the hold lapses and counts as spent in full
            return
        self._calls.append(call)
        if self._gathering is None:
            self._gathering = asyncio.get_running_loop().call_later(GATHER_SECONDS, self._gathered)

    def _gathered(self) -> None:
        self._gathering = None
        self._work.set()

    async def run(self) -> None:
        """Connect and send queued calls, and reconnect after errors, until cancelled."""
        async with running(self._check_periodically()):
            await self._send_until_cancelled()

    async def _check_periodically(self) -> None:
        """Wake the sender, which pings an idle connection."""
        while True:
            await asyncio.sleep(IDLE_SECONDS)
            self._work.set()

    async def _send_until_cancelled(self) -> None:
        failures = 0
        while True:
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    connection = await self._connect()
                if self.problem:
                    log.warning("Redis at %s is available again", self.address)
                self.problem, failures = "", 0
                self._work.set()
                while True:
                    await self._work.wait()
                    async with asyncio.timeout(CALL_SECONDS):
                        await self._exchange(connection)
            except Exception as error:  # after any error, Redis is unavailable until it responds again
                self._away(error)
            finally:
                await self._disconnect()
            await asyncio.sleep(BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS) - 1)] * _jitter.uniform(0.5, 1.0))
            failures += 1

    async def drain(self, seconds: float) -> None:
        """Wait until all calls are sent, for at most `seconds`."""
        deadline = time.monotonic() + seconds
        # polling is sufficient: it runs once, at shutdown
        while (self._calls or self._sending) and not self.problem and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(GATHER_SECONDS)

    async def _connect(self) -> Connection:
        self._connection = connection = connect(self._url, self._network)
        await connection.connect()  # type: ignore[no-untyped-call]
        await connection.send_command("INFO", "server")
        info: bytes = await connection.read_response()
        lines = (line.partition(b":") for line in info.splitlines())
        self._run = next((value.decode() for name, _, value in lines if name == b"run_id"), "")
        await connection.send_command("SCRIPT", "LOAD", self._script)
        self._digest = await connection.read_response()
        return connection

    async def _exchange(self, connection: Connection) -> None:
        """Send the queued calls in one pipeline and read the responses. Without calls, ping."""
        self._work.clear()
        while len(self._sending) < MAX_PIPELINED and self._calls:
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
        # report only the type: the text of an error may hold the command
        problem = "no response in time" if isinstance(error, TimeoutError) else type(error).__name__
        if not self.problem:
            log.error("Redis at %s is unavailable: %s", self.address, problem)
        self.problem = problem
        waiting = [*self._sending, *self._calls]
        self._sending, self._calls = [], deque(call for call in waiting if call.lasting)
        for call in waiting:
            call.failed()

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):  # the connection is not used again
                await connection.disconnect(nowait=True)


def connect(url: str, network: Network) -> Connection:
    """Create a connection without retries. It trusts the CAs of `network` unless the URL sets `ssl_ca_certs`."""
    from redis.asyncio.connection import ConnectionPool, SSLConnection
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    retry = Retry(NoBackoff(), 0)
    pool: Any = ConnectionPool.from_url(
        url, socket_connect_timeout=CONNECT_SECONDS, socket_timeout=None, retry=retry, protocol=2
    )
    connection: Connection = pool.make_connection()
    if isinstance(connection, SSLConnection) and network.bundle is not None and connection.ca_certs is None:
        connection.ssl_context.context = network.ssl_context()
    return connection


async def check(url: str, network: Network, seconds: float) -> None:
    """Connect and run a script.

    Raises:
        redis.exceptions.RedisError, OSError, TimeoutError, ImportError: Redis cannot be used.
    """
    async with asyncio.timeout(seconds):
        connection = connect(url, network)
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            await connection.send_command("EVAL", "return 1", 0)
            await connection.read_response()
        finally:
            await connection.disconnect()

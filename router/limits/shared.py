"""Limits that several workers and replicas share through Redis. `Account` then mirrors the state in Redis.

A hold is one call of state.lua for a key and its team together; a settlement is one call for each account. If Redis
has no account (at first use or after data loss), the worker that notices reads the spending from the ledger and
creates the account.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Literal

from router.client.keyfile import Owner
from router.errors import LimitsError, StateAwayError
from router.journal.writer import Record
from router.lifetime import running
from router.limits.account import Account, Period, day_of, month_of
from router.limits.booking import Booking, Share, hold
from router.limits.bound import Most
from router.limits.calls import CorrectCall, Held, HoldCall, Place, RenewCall, SettleCall, Wanted, nano
from router.limits.link import AwayError, Link
from router.limits.spent import Spent
from router.policy.network import Network

log = logging.getLogger("router")
LAPSE_SECONDS = 600.0  # after the last renewal, a hold counts as spent in full
RENEW_SECONDS = 60.0
CORRECT_SECONDS = 60.0  # after an account is created; by then other replicas have exported their records
MOST_UNKNOWN = 10_000  # settlements that are kept for an account that Redis does not have
ATTEMPTS = 3
END_SECONDS = 1.0

Ledger = Callable[[Owner, int, int, int], Awaitable[Spent]]  # start of day, start of month, end; raises LimitsError


class SharedShare(Share):
    """The hold of one request on an account in Redis."""

    __slots__ = ("_shared", "born", "member", "place")

    def __init__(self, shared: Shared, share: Share, place: Place, member: str, born: str) -> None:
        """`born` identifies the account in Redis that has the hold; empty if there is none."""
        super().__init__(share.account, share.usd, share.tokens, share.day, share.month)
        self._shared = shared
        self.place, self.member, self.born = place, member, born

    def settle(self, spent_usd: float, used_tokens: int | None, ended_unix_ns: int) -> None:
        """Settle in this worker and in Redis."""
        super().settle(spent_usd, used_tokens, ended_unix_ns)
        back = 0 if used_tokens is None or not self.tokens else self.tokens - used_tokens
        self._shared.settle(self, ended_unix_ns, spent_usd, back)

    def mirror(self, day: tuple[int, int], month: tuple[int, int]) -> None:
        """Copy the state of Redis to the account."""
        if self.account.day is self.day:
            self.account.mirror_dollars(day, month)


class Shared:
    """Holds and settles in Redis, for one worker, within the context of `running`."""

    def __init__(
        self, url: str, failure: Literal["closed", "open"], ledger: Ledger, network: Network | None = None
    ) -> None:
        self.link = Link(url, network or Network())
        self._failure = failure
        self._ledger = ledger
        self._worker = secrets.token_hex(6)
        self._numbers = itertools.count()
        self._born: dict[str, str] = {}  # by the Redis key of the account
        self._places: dict[Owner, tuple[Period, Place]] = {}  # with the day they are for
        self._open: dict[str, SharedShare] = {}  # by member
        self._unknown: dict[str, deque[SettleCall]] = {}  # by the Redis key of the account
        self._making: dict[str, asyncio.Task[None]] = {}
        self._later: set[asyncio.Task[None]] = set()

    async def hold(self, accounts: Sequence[Account], most: Most, now_unix_ns: int, *, billed: bool = True) -> Booking:
        """Hold the most that a request can use, on all accounts or on none.

        Raises:
            QuotaError, RateLimitError: the request exceeds the limits.
            LimitsError: Redis is unavailable, or the spending cannot be read.
        """
        wanted, shares = [], []
        for account in accounts:
            if now_unix_ns >= account.day.ends_unix_ns:
                account.turn(now_unix_ns)
            wanted.append(self._wanted(account, most))
            shares.append(Share(account, most.usd, 0, account.day, account.month))
        try:
            results = await self._held(accounts, wanted, most, now_unix_ns, billed=billed)
        except AwayError as error:
            return await self._without(accounts, most, now_unix_ns, billed=billed, error=error)
        for share, request, held in zip(shares, wanted, results, strict=True):
            account, share.tokens = share.account, held.tokens
            if account.day is share.day:
                account.mirror_dollars(held.day, held.month)
                account.mirror_rates(now_unix_ns, *held.left)
                account.known = account.known or account.in_dollars
            if held.born and held.born != self._born.get(request.place.keys[0]):
                self._adopt(request.place, held.born)
        for account, held in zip(accounts, results, strict=True):
            if held.verdict != "fits":
                raise account.refuse(held.verdict, most, held.tokens)
        return self._booked(most, shares, wanted, [held.born for held in results])

    def settle(self, share: SharedShare, ended_unix_ns: int, usd: float, tokens: int) -> None:
        """Send the cost of a request and its unused tokens to Redis."""
        self._open.pop(share.member, None)
        unknown = self._keep if share.account.in_dollars else None
        arguments = share.place, share.member, share.born, usd, ended_unix_ns // 1000, tokens
        self.link.send(SettleCall(*arguments, share.mirror, unknown))

    def spend(self, account: Account, usd: float, record: Record) -> None:
        """Send the cost of a request without a hold to Redis."""
        place = Place.of(account.owner, day_of(record.started_unix_ns), month_of(record.started_unix_ns))
        member = f"{self._worker}-{next(self._numbers)} {place.day} 0"
        self.link.send(SettleCall(place, member, "", usd, record.ended_unix_ns // 1000, unknown=self._keep))

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Stay connected and renew holds while the context is open. Send pending settlements before it ends."""
        async with running(self.link.run()), running(self._renew_periodically()):
            try:
                yield
            finally:
                await self.link.drain(END_SECONDS)
                for task in (*self._later, *self._making.values()):
                    task.cancel()

    def _place(self, account: Account) -> Place:
        """The Redis keys of the account today."""
        known = self._places.get(account.owner)
        if known is None or known[0] is not account.day:
            known = self._places[account.owner] = account.day, Place.of(account.owner, account.day, account.month)
        return known[1]

    def _wanted(self, account: Account, most: Most) -> Wanted:
        place = self._place(account)
        member = f"{self._worker}-{next(self._numbers)} {place.day} {nano(most.usd)}"
        return Wanted(place, member, account.limits)

    def _booked(self, most: Most, shares: Sequence[Share], wanted: Sequence[Wanted], born: Sequence[str]) -> Booking:
        """Create the booking for the holds. It stays open until it is settled."""
        booked = [
            SharedShare(self, share, request.place, request.member, name)
            for share, request, name in zip(shares, wanted, born, strict=True)
        ]
        self._open.update((share.member, share) for share in booked)
        return Booking(most.usd, booked, [share.account for share in booked])

    async def _held(
        self, accounts: Sequence[Account], wanted: Sequence[Wanted], most: Most, now_unix_ns: int, *, billed: bool
    ) -> list[Held]:
        now_us = now_unix_ns // 1000
        for _ in range(ATTEMPTS):
            call = HoldCall(wanted, most, now_us, now_us + int(LAPSE_SECONDS * 1e6), billed=billed)
            self.link.send(call)
            try:
                results = await call.answer
            except asyncio.CancelledError:
                self._release(accounts, wanted)
                raise
            if results is None:
                self._release(accounts, wanted)
                raise AwayError(self.link.problem)
            unknown = [number for number, held in enumerate(results) if held.verdict == "unknown"]
            if not unknown:
                return results
            for number in unknown:
                await self._ensure(accounts[number], wanted[number].place)
        names = " and ".join(str(account.owner) for account in accounts)
        raise LimitsError(f"Redis does not store the limits of {names}; try again.")

    def _release(self, accounts: Sequence[Account], wanted: Sequence[Wanted]) -> None:
        """Release holds that may exist for a request that is not sent."""
        for account, request in zip(accounts, wanted, strict=True):
            if account.in_dollars:
                born = self._born.get(request.place.keys[0], "")
                self.link.send(SettleCall(request.place, request.member, born, 0.0, time.time_ns() // 1000))

    async def _without(
        self, accounts: Sequence[Account], most: Most, now_unix_ns: int, *, billed: bool, error: AwayError
    ) -> Booking:
        """Handle that Redis is unavailable: refuse the request, or enforce the limits in this worker alone."""
        if self._failure == "closed":
            owner = accounts[0].owner
            raise StateAwayError(f"The limits of {owner} cannot be read at the moment; try again.") from error
        for account in accounts:
            if account.in_dollars and not account.known:
                day, month, now = account.day, account.month, account.since_unix_ns
                earlier = await self._ledger(account.owner, day.starts_unix_ns, month.starts_unix_ns, now)
                if not account.known:
                    day.spent_usd += earlier.day_usd
                    month.spent_usd += earlier.month_usd
                    account.known = True
        booking = hold(accounts, most, now_unix_ns, billed=billed)
        wanted = [self._wanted(account, most) for account in accounts]
        return self._booked(most, booking.shares, wanted, [""] * len(wanted))

    # accounts in Redis

    async def _ensure(self, account: Account, place: Place) -> None:
        """Create the account in Redis. Concurrent requests share one read of the ledger."""
        key = place.keys[0]
        making = self._making.get(key)
        if making is None:
            making = self._making[key] = asyncio.create_task(self._make(account, place))
            making.add_done_callback(lambda _: self._making.pop(key, None))
        await asyncio.shield(making)

    async def _make(self, account: Account, place: Place) -> None:
        since_us = time.time_ns() // 1000
        day, month = account.day.starts_unix_ns, account.month.starts_unix_ns
        earlier = await self._ledger(account.owner, day, month, since_us * 1000)
        name = secrets.token_hex(8)
        call = self._renewal(place, name, since_us, earlier)
        self.link.send(call)
        born = await call.answer
        if born is None:
            raise AwayError(self.link.problem)
        self._adopt(place, born)
        if born.endswith(name):
            log.info("%s has spent $%.4f today and $%.4f this month", account.owner, earlier.day_usd, earlier.month_usd)
            task = asyncio.create_task(self._correct(account.owner, place, born, (day, month, since_us * 1000)))
            self._later.add(task)
            task.add_done_callback(self._later.discard)

    def _renewal(self, place: Place, name: str = "", since_us: int = 0, earlier: Spent | None = None) -> RenewCall:
        until_us = time.time_ns() // 1000 + int(LAPSE_SECONDS * 1e6)
        holds: list[str] = []
        for share in self._open.values():
            if share.place.keys == place.keys:
                holds += (share.member, share.born)
        spent = (0, 0) if earlier is None else (nano(earlier.day_usd), nano(earlier.month_usd))
        call = RenewCall(place, name, since_us, spent, until_us, holds)

        def renewed(answer: asyncio.Future[str | None]) -> None:
            if not answer.cancelled() and (born := answer.result()):
                for member in holds[::2]:
                    if (share := self._open.get(member)) is not None:
                        share.born = born

        call.answer.add_done_callback(renewed)
        return call

    def _adopt(self, place: Place, born: str) -> None:
        """Remember the account in Redis. If it is new, send it the open holds and pending settlements."""
        key = place.keys[0]
        if self._born.get(key) == born:
            return
        if len(self._born) > MOST_UNKNOWN:
            self._born.clear()
        self._born[key] = born
        for call in self._unknown.pop(key, ()):
            self.link.send(call)
        with contextlib.suppress(AwayError):  # the next renewal is within a minute
            self.link.send(self._renewal(place))

    def _keep(self, call: SettleCall) -> None:
        """Queue a settlement until Redis has the account."""
        self._unknown.setdefault(call.keys[0], deque(maxlen=MOST_UNKNOWN)).append(call)

    async def _correct(self, owner: Owner, place: Place, born: str, times: tuple[int, int, int]) -> None:
        """Read the ledger again after all replicas have exported the requests that ended before `times[2]`."""
        await asyncio.sleep(CORRECT_SECONDS)
        with contextlib.suppress(LimitsError):  # logged by the reader
            spent = await self._ledger(owner, *times)
            self.link.send(CorrectCall(place, born, (nano(spent.day_usd), nano(spent.month_usd))))

    async def _renew_periodically(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            with contextlib.suppress(AwayError):
                for place in {share.place.keys: share.place for share in self._open.values()}.values():
                    self.link.send(self._renewal(place))

"""Enforce the limits of keys and teams, for one worker."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from typing import Protocol

from router.adaptation.adapter import Adapter
from router.client.keyfile import Limits, Owner
from router.client.keys import Caller
from router.errors import LimitsError
from router.journal.writer import Record
from router.limits.account import Account
from router.limits.booking import Booking, hold
from router.limits.bound import Bound, Most
from router.limits.shared import Shared
from router.limits.spent import Spent, spent, usd_of
from router.planning.plan import ApiFormat, Plan
from router.policy.prices import PriceBook
from router.serving.policy import Serving
from router.settings import Settings
from router.wire.skeleton import Skeleton

log = logging.getLogger("router")
READ_SECONDS = 20.0  # timeout for reading the usage tables
NO_COST = Most(0.0, 0, 0)


class Collaborators(Protocol):
    """What the limiter needs; `router.app.Router` provides it."""

    settings: Settings
    serving: Serving
    adapter: Adapter
    prices: PriceBook


class Limiter:
    """Holds the most that requests can use, and settles what they used."""

    def __init__(self, router: Collaborators, *, alone: bool) -> None:
        """`alone`: no other worker serves the same keys."""
        self.accounts: dict[tuple[str, str], Account] = {}  # by owner; only owners with limits that have sent requests
        self.problem = ""  # why requests with limited keys are refused; empty if they are not
        self._router = router
        self._bound = Bound(router.prices, router.adapter)
        self._alone = alone
        self._reading: dict[Owner, asyncio.Task[None]] = {}
        state = router.settings.state
        self._shared: Shared | None = None
        if state is not None:
            settings = router.settings
            self._shared = Shared(state.get_secret_value(), settings.state_failure, self._spent, settings.network)

    @property
    def away(self) -> str:
        """Why Redis is unavailable, and the consequence; empty if it is available or not used."""
        shared = self._shared
        if shared is None or not shared.link.problem:
            return ""
        closed = self._router.settings.state_failure == "closed"
        follows = "requests with limited keys are refused" if closed else "each worker enforces the limits by itself"
        return f"Redis at {shared.link.address} is unavailable ({shared.link.problem}): {follows}"

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Stay connected to Redis, if it is used, while the context is open."""
        if self._shared is None:
            yield
            return
        async with self._shared.running():
            yield

    async def hold(self, caller: Caller, plan: Plan, api_format: ApiFormat, body: Skeleton, now: int) -> Booking:
        """Hold the most that a request can use; `now` is in nanoseconds since 1970.

        Raises:
            QuotaError, RateLimitError: the request exceeds the limits of the key or its team.
            UnpricedModelError: a budget applies and a model that may answer has no price.
            LimitsError: the spending cannot be read.
        """
        accounts, priced = await self._accounts(caller)
        models = self._router.serving.policy.rules.models
        most = self._bound.most(plan, api_format, body, models, now, priced=priced)
        return hold(accounts, most, now) if self._shared is None else await self._shared.hold(accounts, most, now)

    def floor(self, caller: Caller, now: int) -> float | None:
        """The lower target of `auto` if a budget of the key or its team is nearly spent; else None."""
        lowest = None
        for owner, limits in caller.held_to:
            if limits.floor is not None and (account := self.accounts.get(owner)) is not None:
                floor = account.floor(now)
                if floor is not None and (lowest is None or floor < lowest):
                    lowest = floor
        return lowest

    async def hold_call(self, caller: Caller, model: str | None, size: int, *, billed: bool) -> Booking:
        """Hold the most that a passed-through request can use; `model` is the model of an embedding of `size` bytes.

        The cost of other requests is unknown in advance: if `billed`, the budget must not be spent yet.

        Raises:
            QuotaError, RateLimitError, UnpricedModelError, LimitsError: as `hold`.
        """
        now = time.time_ns()
        accounts, priced = await self._accounts(caller)
        most = NO_COST
        if model is not None:
            most, billed = self._bound.most_of_embedding(model, size, now, priced=priced), True
        if self._shared is not None:
            return await self._shared.hold(accounts, most, now, billed=billed)
        return hold(accounts, most, now, billed=billed)

    def settle(self, record: Record, booking: Booking | None, *, begun: bool | None = None) -> None:
        """Settle the holds of a request, and charge accounts without a hold. Call it before `record` is in the journal.

        `begun` is as in `Booking.settle`. A request has no hold on an account whose limits are newer than the request.
        """
        if booking is not None:
            booking.settle(record, begun=begun)
        for owner in (("key", record.key_id), ("team", record.team)):
            account = self.accounts.get(owner)
            if account is not None and (booking is None or account not in booking.accounts):
                self._count(account, record)

    def _count(self, account: Account, record: Record) -> None:
        # the ledger covers requests that ended before the account was opened, and was perhaps read without this one
        record.ended_unix_ns = max(record.ended_unix_ns, account.since_unix_ns)
        usd = usd_of(record)
        if usd:
            account.spend(usd, record.started_unix_ns)
            if self._shared is not None:
                self._shared.spend(account, usd, record)

    async def _accounts(self, caller: Caller) -> tuple[list[Account], bool]:
        """The accounts whose limits apply to a caller, and whether one of them has a budget.

        Raises:
            LimitsError: as `_opened`.
        """
        accounts, priced = [], False
        for owner, limits in caller.held_to:
            account = self.accounts.get(owner)
            if account is None or account.limits is not limits:
                account = await self._opened(owner, limits)
            accounts.append(account)
            priced = priced or account.in_dollars
        return accounts, priced

    async def _opened(self, owner: Owner, limits: Limits) -> Account:
        """Open the account of a key or team, or update its limits.

        Raises:
            LimitsError: several workers run without shared state, or a store cannot be read.
        """
        if not self._alone and self._shared is None:
            self.problem = f"{owner} has limits, which several workers can share only through Redis: set ROUTER_STATE"
            raise LimitsError(f"{self.problem[0].upper()}{self.problem[1:]}.")
        account = self.accounts.get(owner)
        if account is None:
            account = self.accounts[owner] = Account(owner, time.time_ns())
        if limits.in_dollars and not account.known and self._shared is None:
            reading = self._reading.get(owner)
            if reading is None:
                reading = self._reading[owner] = asyncio.create_task(self._read(account))
                reading.add_done_callback(lambda _: self._reading.pop(owner, None))
            await asyncio.shield(reading)  # shielded, since other requests may wait for the same task
        account.limit(limits)
        return account

    async def _read(self, account: Account) -> None:
        """Add the spending before the account was opened."""
        day, month = account.day, account.month
        earlier = await self._spent(account.owner, day.starts_unix_ns, month.starts_unix_ns, account.since_unix_ns)
        day.spent_usd += earlier.day_usd
        month.spent_usd += earlier.month_usd
        account.known = True
        log.info("%s has spent $%.4f today and $%.4f this month", account.owner, earlier.day_usd, earlier.month_usd)

    async def _spent(self, owner: Owner, day_unix_ns: int, month_unix_ns: int, until_unix_ns: int) -> Spent:
        """Read the spending of a key or team on a day and in a month from the ledger.

        Raises:
            LimitsError: the ledger cannot be read.
        """
        settings = self._router.settings
        arguments = settings.usage_url, settings.home / "journal", owner, day_unix_ns, month_unix_ns, until_unix_ns
        try:
            async with asyncio.timeout(READ_SECONDS):
                return await asyncio.to_thread(spent, *arguments)
        except Exception as error:  # on any error, refuse: without the spending, the budget cannot be checked
            log.error("cannot read the spending of %s: %s", owner, type(error).__name__)
            raise LimitsError(f"The spending of {owner} cannot be read at the moment; try again.") from error

"""The limits of keys and teams, for one worker: what is held for each request, and what was spent before."""

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
READ_SECONDS = 20.0  # until the usage tables are taken for out of reach
NOTHING = Most(0.0, 0, 0)


class Collaborators(Protocol):
    """What limits are reckoned with; `router.app.Router` has it all."""

    settings: Settings
    serving: Serving
    adapter: Adapter
    prices: PriceBook


class Limiter:
    """Holds what requests may use, and settles what they did."""

    def __init__(self, router: Collaborators, *, alone: bool) -> None:
        """`alone`: no other worker answers for the same keys."""
        self.accounts: dict[tuple[str, str], Account] = {}  # by owner, of those with limits that asked
        self.problem = ""  # why keys with limits are not answered, or nothing
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
        """Why Redis is away, and what follows; nothing where it is there or not used."""
        shared = self._shared
        if shared is None or not shared.link.problem:
            return ""
        closed = self._router.settings.state_failure == "closed"
        follows = "keys with limits are refused" if closed else "each worker holds keys to their limits by itself"
        return f"Redis at {shared.link.address} is away ({shared.link.problem}): {follows}"

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Be connected to Redis, where it is used, while the context is open."""
        if self._shared is None:
            yield
            return
        async with self._shared.running():
            yield

    async def hold(self, caller: Caller, plan: Plan, api_format: ApiFormat, body: Skeleton, now: int) -> Booking:
        """Hold what a request may use at most; `now` is in nanoseconds since 1970.

        Raises:
            QuotaError, RateLimitError: the limits of the key or of its team do not hold it.
            UnpricedModelError: there is a budget, and a model that may answer has no price.
            LimitsError: what was spent cannot be read.
        """
        accounts, priced = await self._accounts(caller)
        models = self._router.serving.policy.rules.models
        most = self._bound.most(plan, api_format, body, models, now, priced=priced)
        return hold(accounts, most, now) if self._shared is None else await self._shared.hold(accounts, most, now)

    def floor(self, caller: Caller, now: int) -> float | None:
        """The target that `auto` is held to, where a budget of the key or of its team is nearly spent."""
        lowest = None
        for owner, limits in caller.held_to:
            if limits.floor is not None and (account := self.accounts.get(owner)) is not None:
                floor = account.floor(now)
                if floor is not None and (lowest is None or floor < lowest):
                    lowest = floor
        return lowest

    async def hold_call(self, caller: Caller, model: str | None, size: int, *, billed: bool) -> Booking:
        """Hold what a request may use that is passed on; `model` is that of an embedding of `size` bytes.

        Of what is no embedding the cost is not known before: where it is `billed`, the budget must not be spent.

        Raises:
            QuotaError, RateLimitError, UnpricedModelError, LimitsError: as `hold`.
        """
        now = time.time_ns()
        accounts, priced = await self._accounts(caller)
        most = NOTHING
        if model is not None:
            most, billed = self._bound.most_of_embedding(model, size, now, priced=priced), True
        if self._shared is not None:
            return await self._shared.hold(accounts, most, now, billed=billed)
        return hold(accounts, most, now, billed=billed)

    def settle(self, record: Record, booking: Booking | None, *, begun: bool | None = None) -> None:
        """Settle what a request held, and count it where nothing was held; call it before the journal has `record`.

        `begun` is as in `Booking.settle`. Nothing is held of an account whose limits are newer than the request.
        """
        if booking is not None:
            booking.settle(record, begun=begun)
        for owner in (("key", record.key_id), ("team", record.team)):
            account = self.accounts.get(owner)
            if account is not None and (booking is None or account not in booking.accounts):
                self._count(account, record)

    def _count(self, account: Account, record: Record) -> None:
        # the ledger has what ended before the account was opened, and may have been read without this record
        record.ended_unix_ns = max(record.ended_unix_ns, account.since_unix_ns)
        usd = usd_of(record)
        if usd:
            account.spend(usd, record.started_unix_ns)
            if self._shared is not None:
                self._shared.spend(account, usd, record)

    async def _accounts(self, caller: Caller) -> tuple[list[Account], bool]:
        """The accounts that a caller is held to, with its limits of now; and whether one of them has a budget.

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
        """The account of a key or a team that asks for the first time, or whose limits changed.

        Raises:
            LimitsError: several workers would each hold it to all of its limits, or a store cannot be read.
        """
        if not self._alone and self._shared is None:
            self.problem = f"{owner} has limits, which several workers share by ROUTER_STATE alone: set it"
            raise LimitsError(f"{self.problem[0].upper()}{self.problem[1:]}.")
        account = self.accounts.get(owner)
        if account is None:
            account = self.accounts[owner] = Account(owner, time.time_ns())
        if limits.in_dollars and not account.known and self._shared is None:
            reading = self._reading.get(owner)
            if reading is None:
                reading = self._reading[owner] = asyncio.create_task(self._read(account))
                reading.add_done_callback(lambda _: self._reading.pop(owner, None))
            await asyncio.shield(reading)  # others wait for it as well
        account.limit(limits)
        return account

    async def _read(self, account: Account) -> None:
        """Add what was spent before the account was opened."""
        day, month = account.day, account.month
        found = await self._spent(account.owner, day.starts_unix_ns, month.starts_unix_ns, account.since_unix_ns)
        day.spent_usd += found.day_usd
        month.spent_usd += found.month_usd
        account.known = True
        log.info("%s has spent $%.4f today and $%.4f this month", account.owner, found.day_usd, found.month_usd)

    async def _spent(self, owner: Owner, day_unix_ns: int, month_unix_ns: int, until_unix_ns: int) -> Spent:
        """What a key or a team spent on a day and in a month, by the ledger.

        Raises:
            LimitsError: that cannot be read.
        """
        settings = self._router.settings
        given = settings.usage_url, settings.home / "journal", owner, day_unix_ns, month_unix_ns, until_unix_ns
        try:
            async with asyncio.timeout(READ_SECONDS):
                return await asyncio.to_thread(spent, *given)
        except Exception as error:  # whatever it is, nothing is spent that is not known to be there
            log.error("what %s has spent cannot be read: %s", owner, type(error).__name__)
            raise LimitsError(f"What {owner} has spent cannot be read now; try again.") from error

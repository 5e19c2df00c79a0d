"""The limits of all keys, for one worker: what is held for each request, and what each key had spent before."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from typing import Protocol

from router.adaptation.adapter import Adapter
from router.client.keys import Caller
from router.errors import LimitsError
from router.journal.writer import Record
from router.limits.account import Account, Booking
from router.limits.bound import Bound, Most
from router.limits.shared import Shared
from router.limits.spent import Spent, spent
from router.planning.plan import Plan, Surface
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
        self.accounts: dict[str, Account] = {}  # by key, of those with limits that asked
        self.problem = ""  # why keys with limits are not answered, or nothing
        self._router = router
        self._bound = Bound(router.prices, router.adapter)
        self._alone = alone
        self._reading: dict[str, asyncio.Task[None]] = {}
        state = router.settings.state
        self._shared: Shared | None = None
        if state is not None:
            self._shared = Shared(state.get_secret_value(), router.settings.state_failure, self._spent)

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

    async def hold(self, caller: Caller, plan: Plan, surface: Surface, body: Skeleton, now: int) -> Booking:
        """Hold what a request may use at most; `now` is in nanoseconds since 1970.

        Raises:
            QuotaError, RateLimitError: the key's limits do not hold it.
            UnpricedModelError: the key has a budget, and a model that may answer has no price.
            LimitsError: what the key has spent cannot be read.
        """
        account = self.accounts.get(caller.key_id)
        if account is None or account.limits is not caller.limits:
            account = await self._opened(caller)
        priced = account.in_dollars
        models = self._router.serving.policy.rules.models
        most = self._bound.most(plan, surface, body, models, now, priced=priced)
        return account.hold(most, now) if self._shared is None else await self._shared.hold(account, most, now)

    def floor(self, caller: Caller, now: int) -> float | None:
        """The target that `auto` is held to, where a budget of the key is nearly spent."""
        account = self.accounts.get(caller.key_id)
        return None if account is None else account.floor(now)

    async def hold_call(self, caller: Caller, model: str | None, size: int, *, billed: bool) -> Booking:
        """Hold what a request may use that is passed on; `model` is that of an embedding of `size` bytes.

        Of what is no embedding the cost is not known before: where it is `billed`, the budget must not be spent.

        Raises:
            QuotaError, RateLimitError, UnpricedModelError, LimitsError: as `hold`.
        """
        now = time.time_ns()
        account = self.accounts.get(caller.key_id)
        if account is None or account.limits is not caller.limits:
            account = await self._opened(caller)
        most = NOTHING
        if model is not None:
            most, billed = self._bound.most_of_embedding(model, size, now, priced=account.in_dollars), True
        if self._shared is not None:
            return await self._shared.hold(account, most, now, billed=billed)
        return account.hold(most, now, billed=billed)

    def count(self, record: Record) -> None:
        """Count a request of a key with limits for which nothing was held: it began before the key had them."""
        account = self.accounts[record.key_id]
        if record.cost_usd is not None and record.ended_unix_ns >= account.since_unix_ns:
            account.spend(record.cost_usd, record.started_unix_ns)
            if self._shared is not None:
                self._shared.spend(account, record.cost_usd, record)

    async def _opened(self, caller: Caller) -> Account:
        """The account of a key that asks for the first time, or whose limits changed.

        Raises:
            LimitsError: several workers would each hold the key to all of its limits, or a store cannot be read.
        """
        limits, key = caller.limits, caller.key_id
        assert limits is not None
        if not self._alone and self._shared is None:
            self.problem = f"key {key} has limits, which several workers share by ROUTER_STATE alone: set it"
            raise LimitsError(f"{self.problem[0].upper()}{self.problem[1:]}.")
        account = self.accounts.get(key)
        if account is None:
            account = self.accounts[key] = Account(key, time.time_ns())
        if limits.in_dollars and not account.known and self._shared is None:
            reading = self._reading.get(key)
            if reading is None:
                reading = self._reading[key] = asyncio.create_task(self._read(account))
                reading.add_done_callback(lambda _: self._reading.pop(key, None))
            await asyncio.shield(reading)  # others wait for it as well
        account.limit(limits)
        return account

    async def _read(self, account: Account) -> None:
        """Add what the key had spent before its account was opened."""
        day, month = account.day, account.month
        found = await self._spent(account.key, day.starts_unix_ns, month.starts_unix_ns, account.since_unix_ns)
        day.spent_usd += found.day_usd
        month.spent_usd += found.month_usd
        account.known = True
        log.info("key %s has spent $%.4f today and $%.4f this month", account.key, found.day_usd, found.month_usd)

    async def _spent(self, key: str, day_unix_ns: int, month_unix_ns: int, until_unix_ns: int) -> Spent:
        """What a key spent on a day and in a month, by the ledger.

        Raises:
            LimitsError: that cannot be read.
        """
        settings = self._router.settings
        given = settings.usage_url, settings.home / "journal", key, day_unix_ns, month_unix_ns, until_unix_ns
        try:
            async with asyncio.timeout(READ_SECONDS):
                return await asyncio.to_thread(spent, *given)
        except Exception as error:  # whatever it is, nothing is spent that is not known to be there
            log.error("what key %s has spent cannot be read: %s", key, type(error).__name__)
            raise LimitsError(f"What key {key} has spent cannot be read now; try again.") from error

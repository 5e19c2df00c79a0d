"""Alerts where a key or a team has spent half of a budget, 80 % of it, or all. Looked at once a second."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Protocol

from router.alerts.alert import Field
from router.client.keyfile import Owner
from router.lifetime import repeating
from router.limits.account import Account, Period
from router.limits.limiter import Limiter

SHARES = (1.0, 0.8, 0.5)
REFUSED_FROM = 0.8  # the share from which a budget that refused a request counts as spent
LOOK_EVERY_SECONDS = 1.0
MOST_KNOWN = 10_000
DAY = 86_400.0  # seconds


class Telling(Protocol):
    """Who is told; `router.alerts.alerts.Alerts` is."""

    def alert(
        self,
        kind: str,
        subject: str,
        text: str,
        fields: dict[str, Field] | None = None,
        *,
        occasion: str = "",
        until_unix: float | None = None,
    ) -> None: ...


class Budgets:
    """Looks at the accounts of the keys and teams with budgets."""

    def __init__(self, limiter: Limiter, alerts: Telling) -> None:
        self._limiter = limiter
        self._alerts = alerts
        self._refused: set[tuple[Owner, str, int]] = set()  # whose budget and of which period refused a request
        self._told: dict[tuple[Owner, str, int, float], float] = {}  # the share that was told last

    def refused(self, owner: tuple[str, str]) -> None:
        """Know that a request was refused until a budget of `owner` begins anew."""
        account = self._limiter.accounts.get(owner)
        if account is None:
            return
        for period, budget in _budgets(account):
            if period.spent_usd >= REFUSED_FROM * budget:
                self._refused.add((account.owner, period.name, period.starts_unix_ns))

    def look(self) -> None:
        """Tell of every share that was reached since the last look. Where several were, of the highest."""
        if len(self._told) + len(self._refused) > MOST_KNOWN:
            self._told, self._refused = {}, set()
        for account in list(self._limiter.accounts.values()):
            for period, budget in _budgets(account):
                spent = period.spent_usd / budget
                if (account.owner, period.name, period.starts_unix_ns) in self._refused:
                    spent = max(spent, 1.0)
                share = next((share for share in SHARES if spent >= share - 1e-9), 0.0)
                known = account.owner, period.name, period.starts_unix_ns, budget
                if share > self._told.get(known, 0.0):
                    self._told[known] = share
                    self._tell(account.owner, period, budget, share)

    def _tell(self, owner: Owner, period: Period, budget: float, share: float) -> None:
        begins, again = _moment(period.starts_unix_ns), _moment(period.ends_unix_ns)
        told = f"{owner} has spent ${period.spent_usd:.2f} of ${budget:g} a {period.name}"
        if share == 1.0:
            text = f"{told}; its requests are refused until {again}"
        else:
            text = f"{told}, which is {share:.0%} or more; the {period.name} ends at {again}"
        fields: dict[str, Field] = {
            owner.kind: owner.name,
            "period": period.name,
            "period_begins": begins,
            "period_ends": again,
            "budget_usd": budget,
            "spent_usd": round(period.spent_usd, 6),
            "share": share,
        }
        occasion = f"{period.name} {begins} ${budget:g} {share:.0%}"
        subject = owner.name if owner.kind == "key" else str(owner)  # a team may have the name of a key
        until_unix = period.ends_unix_ns / 1e9 + DAY
        self._alerts.alert("budget", subject, text, fields, occasion=occasion, until_unix=until_unix)


def _budgets(account: Account) -> Iterator[tuple[Period, float]]:
    limits = account.limits
    for period, budget in ((account.day, limits.usd_a_day), (account.month, limits.usd_a_month)):
        if budget is not None:
            yield period, budget


def _moment(unix_ns: int) -> str:
    return datetime.fromtimestamp(unix_ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@contextlib.asynccontextmanager
async def watching_budgets(budgets: Budgets) -> AsyncIterator[None]:
    """Look at the budgets while the application runs, and once more when it ends."""
    async with repeating(budgets.look, LOOK_EVERY_SECONDS):
        yield
    budgets.look()

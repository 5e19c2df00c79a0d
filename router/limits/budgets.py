"""Send alerts when a key or team has spent 50 %, 80 % or all of a budget. Budgets are checked once a second."""

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
REFUSED_FROM = 0.8  # spent share from which a budget counts as spent once it refuses a request
CHECK_INTERVAL_SECONDS = 1.0
MOST_KNOWN = 10_000
DAY = 86_400.0  # seconds
_Budget = tuple[Owner, str, int, float]  # owner, name and start of the period, US dollars


class AlertSender(Protocol):
    """Sends alerts, as `router.alerts.alerts.Alerts` does."""

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
    """Watches the accounts of keys and teams with budgets."""

    def __init__(self, limiter: Limiter, alerts: AlertSender) -> None:
        self._limiter = limiter
        self._alerts = alerts
        self._refused: set[_Budget] = set()  # the budgets that refused a request
        self._reported: dict[_Budget, float] = {}  # the last share that was reported

    def refused(self, owner: tuple[str, str]) -> None:
        """Record that a budget of `owner` refused a request in the current period."""
        account = self._limiter.accounts.get(owner)
        if account is None:
            return
        for period, budget in _budgets(account):
            if period.spent_usd >= REFUSED_FROM * budget:
                self._refused.add((account.owner, period.name, period.starts_unix_ns, budget))

    def look(self) -> None:
        """Alert on every share reached since the last check; if several were reached, on the highest."""
        if len(self._reported) + len(self._refused) > MOST_KNOWN:
            self._reported, self._refused = {}, set()
        for account in list(self._limiter.accounts.values()):
            for period, budget in _budgets(account):
                known = account.owner, period.name, period.starts_unix_ns, budget
                spent = period.spent_usd / budget
                if known in self._refused:
                    spent = max(spent, 1.0)
                share = next((share for share in SHARES if spent >= share - 1e-9), 0.0)
                if share > self._reported.get(known, 0.0):
                    self._reported[known] = share
                    self._alert(account.owner, period, budget, share)

    def _alert(self, owner: Owner, period: Period, budget: float, share: float) -> None:
        begins, ends = _moment(period.starts_unix_ns), _moment(period.ends_unix_ns)
        spent = f"{owner} has spent {_dollars(period.spent_usd)} of ${budget:g} a {period.name}"
        if share == 1.0 and period.spent_usd >= budget:
            text = f"{spent}; its requests are refused until {ends}"
        elif share == 1.0:
            text = f"{spent}; requests that may cost more than the rest are refused until {ends}"
        else:
            text = f"{spent}, which is {share:.0%} or more; the {period.name} ends at {ends}"
        fields: dict[str, Field] = {
            owner.kind: owner.name,
            "period": period.name,
            "period_begins": begins,
            "period_ends": ends,
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


def _dollars(usd: float) -> str:
    """An amount with two decimals, or with two digits if it is below 10 cents.

    >>> _dollars(4.0173), _dollars(0.008047)
    ('$4.02', '$0.008')
    """
    return f"${usd:.2f}" if usd >= 0.1 else f"${usd:.2g}"


def _moment(unix_ns: int) -> str:
    return datetime.fromtimestamp(unix_ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@contextlib.asynccontextmanager
async def watching_budgets(budgets: Budgets) -> AsyncIterator[None]:
    """Check the budgets while the application runs, and once more when it ends."""
    async with repeating(budgets.look, CHECK_INTERVAL_SECONDS):
        yield
    budgets.look()

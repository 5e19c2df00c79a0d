"""What one request holds of the limits of its key and of its team, until it is settled. No I/O."""

from __future__ import annotations

from collections.abc import Sequence

from router.journal.writer import Record
from router.limits.account import Account, Headers, Period, rates
from router.limits.bound import Most


class Share:
    """What is held of one account."""

    __slots__ = ("account", "day", "month", "tokens", "usd")

    def __init__(self, account: Account, usd: float, tokens: int, day: Period, month: Period) -> None:
        self.account = account
        self.usd, self.tokens = usd, tokens
        self.day, self.month = day, month  # in which the request began

    def settle(self, spent_usd: float, used_tokens: int | None, ended_unix_ns: int) -> None:  # noqa: ARG002
        """Spend what the request cost, and give back the rest; `used_tokens` is None where all that are held count."""
        for period in (self.day, self.month):
            period.held_usd -= self.usd
            period.spent_usd += spent_usd
        if self.tokens and used_tokens is not None:
            self.account.give_back(self.tokens - used_tokens)


class Booking:
    """What one request holds, of every account that it is held to."""

    __slots__ = ("_settled", "_usd", "accounts", "shares")

    def __init__(self, usd: float, shares: Sequence[Share], accounts: Sequence[Account]) -> None:
        self.shares, self.accounts = shares, accounts
        self._usd = usd
        self._settled = False

    def rates(self) -> Headers:
        """What is left of this minute, by the account that has least."""
        return rates(*self.accounts)

    def settle(self, record: Record, *, begun: bool | None = None) -> None:
        """Spend what the request cost, once, and give back the rest; `begun`: a model may have billed it.

        Where it is not known what was billed, what was held counts as spent, and the record says so in `kept_usd`.
        """
        if self._settled:
            return
        self._settled = True
        usd, spent = self._usd, record.cost_usd
        if begun is None:
            begun = record.model != "" and (record.status < 400 or record.outcome == "abandoned")
        if spent is None:
            spent = usd if begun else 0.0
            record.kept_usd = spent
        if record.wasted:
            known = [cost for attempt in record.wasted if (cost := attempt["cost_usd"]) is not None]
            kept = usd * (len(record.wasted) - len(known))  # what the others cost is not known
            record.kept_usd += kept
            spent += kept + sum(known)
        used = _used_tokens(record) if record.usage is not None else None if begun else 0
        for share in self.shares:
            share.settle(spent, used, record.ended_unix_ns)


def hold(accounts: Sequence[Account], most: Most, now_unix_ns: int, *, billed: bool = True) -> Booking:
    """Hold what a request may use at most, of all accounts or of none.

    Raises:
        QuotaError, RateLimitError: one of the accounts does not hold it.
    """
    shares: list[Share] = []
    for account in accounts:
        tokens = account.check(most, now_unix_ns, billed=billed)
        shares.append(Share(account, most.usd, tokens, account.day, account.month))
    for share in shares:
        share.account.take(most.usd, share.tokens)
    return Booking(most.usd, shares, accounts)


def _used_tokens(record: Record) -> int:
    used = 0
    for usage in (record.usage, *(attempt["usage"] for attempt in record.wasted)):
        if usage is not None:
            used += usage["input_tokens"] + usage["output_tokens"]
    return used

"""The hold of one request on the limits of its key and team, until it is settled. No I/O."""

from __future__ import annotations

from collections.abc import Sequence

from router.journal.writer import Record
from router.limits.account import Account, Headers, Period, rates
from router.limits.bound import Most


class Share:
    """The hold on one account."""

    __slots__ = ("account", "day", "month", "tokens", "usd")

    def __init__(self, account: Account, usd: float, tokens: int, day: Period, month: Period) -> None:
        self.account = account
        self.usd, self.tokens = usd, tokens
        self.day, self.month = day, month  # the periods in which the request started

    def settle(self, spent_usd: float, used_tokens: int | None, ended_unix_ns: int) -> None:  # noqa: ARG002
        """Charge the cost and release the hold. `used_tokens` None charges all held tokens."""
        for period in (self.day, self.month):
            period.held_usd -= self.usd
            period.spent_usd += spent_usd
        if self.tokens and used_tokens is not None:
            self.account.give_back(self.tokens - used_tokens)


class Booking:
    """The holds of one request on all accounts whose limits apply to it."""

    __slots__ = ("_settled", "_usd", "accounts", "shares")

    def __init__(self, usd: float, shares: Sequence[Share], accounts: Sequence[Account]) -> None:
        self.shares, self.accounts = shares, accounts
        self._usd = usd
        self._settled = False

    def rates(self) -> Headers:
        """Rate limit headers of the account with the least left."""
        return rates(*self.accounts)

    def settle(self, record: Record, *, begun: bool | None = None) -> None:
        """Charge the cost and release the holds, once. `begun`: a model may have billed the request.

        If the billed amount is unknown, charge the held amount and store it in the record as `kept_usd`.
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
            kept = usd * (len(record.wasted) - len(known))  # for attempts of unknown cost
            record.kept_usd += kept
            spent += kept + sum(known)
        used = _used_tokens(record) if record.usage is not None else None if begun else 0
        for share in self.shares:
            share.settle(spent, used, record.ended_unix_ns)


def hold(accounts: Sequence[Account], most: Most, now_unix_ns: int, *, billed: bool = True) -> Booking:
    """Hold the most that a request can use, on all accounts or on none.

    Raises:
        QuotaError, RateLimitError: the request exceeds the limits of an account.
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

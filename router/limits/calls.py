"""The operations of state.lua: their arguments and how their responses are handled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from router.client.keyfile import Limits, Owner
from router.limits.account import NANO, Period
from router.limits.bound import Most

Argument = str | bytes | int
PREFIX = "{router:limits}"  # the braces keep all accounts in one cluster slot: a hold may use two
KEPT_SECONDS = 3 * 86_400  # retention after the end of a month
NO_LIMIT = -1


class Place(NamedTuple):
    """The Redis keys of an account in one month."""

    keys: tuple[str, str, str]
    day: str  # of the month
    expires_unix: int

    @classmethod
    def of(cls, owner: Owner, day: Period, month: Period) -> Place:
        """The place of an account for a day and its month."""
        began = datetime.fromtimestamp(day.starts_unix_ns // 10**9, UTC)
        name = f"{PREFIX}:{owner.kind}:{owner.name}"
        keys = (f"{name}:{began:%Y-%m}", f"{name}:{began:%Y-%m}:holds", f"{name}:minute")
        return cls(keys, f"{began:%d}", month.ends_unix_ns // 10**9 + KEPT_SECONDS)


def nano(usd: float) -> int:
    """Convert to whole nano-dollars, so that sums are exact."""
    return round(usd * NANO)


class Wanted(NamedTuple):
    """A requested hold on one account."""

    place: Place
    member: str  # identifies the hold in Redis
    limits: Limits

    def arguments(self) -> Sequence[Argument]:
        """The arguments of `hold` for one account."""
        limits = self.limits
        day, month = limits.usd_a_day, limits.usd_a_month
        return (
            *(self.member, self.place.expires_unix),
            NO_LIMIT if day is None else nano(day),
            NO_LIMIT if month is None else nano(month),
            limits.requests_a_minute or NO_LIMIT,
            limits.tokens_a_minute or NO_LIMIT,
        )


class Held(NamedTuple):
    """The result of a hold on one account, and the state of the account after it."""

    verdict: str  # fits, unknown, or the limit that refuses: day, month, requests, tokens
    born: str = ""
    day: tuple[int, int] = (0, 0)  # nano-dollars (spent, held)
    month: tuple[int, int] = (0, 0)
    left: tuple[float, float] = (0.0, 0.0)  # remaining (requests, tokens)
    tokens: int = 0  # that were taken, or would be on success


class HoldCall:
    """Holds on all accounts, or on none if one refuses. The caller awaits `answer`."""

    lasting = False

    def __init__(self, wanted: Sequence[Wanted], most: Most, now_us: int, until_us: int, *, billed: bool) -> None:
        """`until_us` is the moment at which the holds lapse, in microseconds since 1970."""
        self.keys = tuple(key for hold in wanted for key in hold.place.keys)
        self._wanted, self._most = wanted, most
        self._now_us, self._until_us, self._billed = now_us, until_us, billed
        self.answer: asyncio.Future[list[Held] | None] = asyncio.get_running_loop().create_future()

    def arguments(self, run: str) -> Sequence[Argument]:
        """The arguments of `hold`."""
        most, day = self._most, self._wanted[0].place.day
        arguments: list[Argument] = ["hold", run, day, self._now_us, self._until_us, nano(most.usd), int(self._billed)]
        arguments += most.largest_tokens, most.tokens
        for hold in self._wanted:
            arguments += hold.arguments()
        return arguments

    def answered(self, answer: list[Any]) -> None:
        """Pass the result to the waiting request."""
        if not self.answer.done():
            self.answer.set_result([_held(*result) for result in answer])

    def failed(self) -> None:
        """Report that it is unknown whether the hold exists."""
        if not self.answer.done():
            self.answer.set_result(None)


def _held(verdict: bytes, *state: Any) -> Held:
    if not state:
        return Held(verdict.decode())
    born, day_spent, day_held, month_spent, month_held, requests, tokens, taken = state
    left = float(requests), float(tokens)
    return Held(verdict.decode(), born.decode(), (day_spent, day_held), (month_spent, month_held), left, taken)


class SettleCall:
    """Settles a hold. It is sent until it succeeds, and counted once even if it is sent again."""

    lasting = True

    def __init__(
        self,
        place: Place,
        member: str,
        born: str,
        usd: float,
        ended_us: int,
        tokens: int = 0,
        settled: Settled | None = None,
        unknown: Unknown | None = None,
    ) -> None:
        """`settled` receives the state of the account; `unknown` is called if Redis has no account."""
        self.keys, self._place = place.keys, place
        self._arguments = member, born, nano(usd), ended_us
        self._tokens = tokens
        self._settled, self._unknown = settled, unknown

    def arguments(self, run: str) -> Sequence[Argument]:
        """The arguments of `settle`. Only the first attempt returns tokens."""
        tokens, self._tokens = self._tokens, 0
        return ("settle", run, self._place.day, *self._arguments, tokens, self._place.expires_unix)

    def answered(self, answer: list[Any]) -> None:
        """Call `settled` or `unknown`."""
        if answer[0] == b"unknown":
            if self._unknown is not None:
                self._unknown(self)
        elif self._settled is not None:
            self._settled((answer[1], answer[2]), (answer[3], answer[4]))

    def failed(self) -> None:
        """Do nothing: the call is sent again."""


Unknown = Callable[[SettleCall], None]
Settled = Callable[[tuple[int, int], tuple[int, int]], None]  # nano-dollars (spent, held) of the day and of the month


class RenewCall:
    """Renews the open holds of this worker, and creates the account if Redis has none."""

    lasting = False

    def __init__(
        self, place: Place, born: str, since_us: int, spent: tuple[int, int], until_us: int, holds: Sequence[str]
    ) -> None:
        """`born` is empty if no account is to be created; `holds` alternates holds and their `born`."""
        self.keys, self._day = place.keys, place.day
        self._born = born
        self._arguments: tuple[Argument, ...] = (since_us, *spent, place.expires_unix, until_us, *holds)
        self.answer: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()

    def arguments(self, run: str) -> Sequence[Argument]:
        """The arguments of `renew`."""
        return ("renew", run, self._day, f"{run}:{self._born}" if self._born else "", *self._arguments)

    def answered(self, answer: list[Any]) -> None:
        """Pass on the `born` of the account in Redis; empty if there is none."""
        if not self.answer.done():
            self.answer.set_result(answer[1].decode() if answer[0] == b"renewed" else "")

    def failed(self) -> None:
        """Report that the account is unknown."""
        if not self.answer.done():
            self.answer.set_result(None)


class CorrectCall:
    """Adds requests that were recorded late to the account."""

    lasting = True

    def __init__(self, place: Place, born: str, spent: tuple[int, int]) -> None:
        self.keys, self._day = place.keys, place.day
        self._arguments = (born, *spent)

    def arguments(self, run: str) -> Sequence[Argument]:
        """The arguments of `correct`."""
        return ("correct", run, self._day, *self._arguments)

    def answered(self, answer: list[Any]) -> None:
        """Do nothing: an account that no longer exists needs no correction."""

    def failed(self) -> None:
        """Do nothing: the call is sent again."""

"""The calls of state.lua, each with what it takes and what becomes of its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from router.client.keyfile import Limits, Owner
from router.limits.account import NANO, Period
from router.limits.bound import Most

Argument = str | bytes | int
PREFIX = "{router:limits}"  # the braces keep all accounts in one slot of a cluster: a hold may take two
KEPT_SECONDS = 3 * 86_400  # after a month's end
NO_LIMIT = -1


class Place(NamedTuple):
    """Where an account is in Redis, in one month."""

    keys: tuple[str, str, str]
    day: str  # of the month
    expires_unix: int

    @classmethod
    def of(cls, owner: Owner, day: Period, month: Period) -> Place:
        """The place for a day and its month."""
        began = datetime.fromtimestamp(day.starts_unix_ns // 10**9, UTC)
        name = f"{PREFIX}:{owner.kind}:{owner.name}"
        keys = (f"{name}:{began:%Y-%m}", f"{name}:{began:%Y-%m}:holds", f"{name}:minute")
        return cls(keys, f"{began:%d}", month.ends_unix_ns // 10**9 + KEPT_SECONDS)


def nano(usd: float) -> int:
    """Whole nano-dollars, so that sums are exact."""
    return round(usd * NANO)


class Wanted(NamedTuple):
    """The hold that is wanted of one account."""

    place: Place
    member: str  # the hold in Redis
    limits: Limits

    def arguments(self) -> Sequence[Argument]:
        """As `hold` of the script takes them for each account."""
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
    """What Redis says of the hold of one account, and of the account after it."""

    verdict: str  # fits, unknown, or what refuses it: day, month, requests, tokens
    born: str = ""
    day: tuple[int, int] = (0, 0)  # nano-dollars spent and held
    month: tuple[int, int] = (0, 0)
    left: tuple[float, float] = (0.0, 0.0)  # requests and tokens
    tokens: int = 0  # that were taken, or would have been


class HoldCall:
    """Asks for a hold of each account, or of none where one refuses it; `answer` is awaited."""

    lasting = False

    def __init__(self, wanted: Sequence[Wanted], most: Most, now_us: int, until_us: int, *, billed: bool) -> None:
        """`until_us` is when the holds lapse."""
        self.keys = tuple(key for each in wanted for key in each.place.keys)
        self._wanted, self._most = wanted, most
        self._now_us, self._until_us, self._billed = now_us, until_us, billed
        self.answer: asyncio.Future[list[Held] | None] = asyncio.get_running_loop().create_future()

    def arguments(self, run: str) -> Sequence[Argument]:
        """As `hold` of the script takes them."""
        most, day = self._most, self._wanted[0].place.day
        given: list[Argument] = ["hold", run, day, self._now_us, self._until_us, nano(most.usd), int(self._billed)]
        given += most.largest_tokens, most.tokens
        for each in self._wanted:
            given += each.arguments()
        return given

    def answered(self, answer: list[Any]) -> None:
        """Hand it to who waits."""
        if not self.answer.done():
            self.answer.set_result([_held(*each) for each in answer])

    def failed(self) -> None:
        """Nobody knows whether it is held."""
        if not self.answer.done():
            self.answer.set_result(None)


def _held(verdict: bytes, *found: Any) -> Held:
    if not found:
        return Held(verdict.decode())
    born, day_spent, day_held, month_spent, month_held, requests, tokens, taken = found
    left = float(requests), float(tokens)
    return Held(verdict.decode(), born.decode(), (day_spent, day_held), (month_spent, month_held), left, taken)


class SettleCall:
    """Settles a hold; sent until it is through, and counted once however often it is sent."""

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
        """`settled` is told of the account afterwards; `unknown`, that Redis has no account."""
        self.keys, self._place = place.keys, place
        self._given = member, born, nano(usd), ended_us
        self._tokens = tokens
        self._settled, self._unknown = settled, unknown

    def arguments(self, run: str) -> Sequence[Argument]:
        """As `settle` of the script takes them. Tokens are given back by the first attempt alone."""
        tokens, self._tokens = self._tokens, 0
        return ("settle", run, self._place.day, *self._given, tokens, self._place.expires_unix)

    def answered(self, answer: list[Any]) -> None:
        """Tell who asked for it."""
        if answer[0] == b"unknown":
            if self._unknown is not None:
                self._unknown(self)
        elif self._settled is not None:
            self._settled((answer[1], answer[2]), (answer[3], answer[4]))

    def failed(self) -> None:
        """It is sent again."""


Unknown = Callable[[SettleCall], None]
Settled = Callable[[tuple[int, int], tuple[int, int]], None]  # nano-dollars spent and held: of the day, the month


class RenewCall:
    """Renews the open holds of this worker, and makes the account where Redis has none."""

    lasting = False

    def __init__(
        self, place: Place, born: str, since_us: int, spent: tuple[int, int], until_us: int, holds: Sequence[str]
    ) -> None:
        """`born` is empty where no account is made; `holds` are pairs of a hold and its `born`."""
        self.keys, self._day = place.keys, place.day
        self._born = born
        self._given: tuple[Argument, ...] = (since_us, *spent, place.expires_unix, until_us, *holds)
        self.answer: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()

    def arguments(self, run: str) -> Sequence[Argument]:
        """As `renew` of the script takes them."""
        return ("renew", run, self._day, f"{run}:{self._born}" if self._born else "", *self._given)

    def answered(self, answer: list[Any]) -> None:
        """Tell which account Redis has; an empty one where it has none."""
        if not self.answer.done():
            self.answer.set_result(answer[1].decode() if answer[0] == b"renewed" else "")

    def failed(self) -> None:
        """Nobody knows."""
        if not self.answer.done():
            self.answer.set_result(None)


class CorrectCall:
    """Adds to the ledger what was recorded late."""

    lasting = True

    def __init__(self, place: Place, born: str, spent: tuple[int, int]) -> None:
        self.keys, self._day = place.keys, place.day
        self._given = (born, *spent)

    def arguments(self, run: str) -> Sequence[Argument]:
        """As `correct` of the script takes them."""
        return ("correct", run, self._day, *self._given)

    def answered(self, answer: list[Any]) -> None:
        """Nothing is to be done: an account that is gone needs none."""

    def failed(self) -> None:
        """It is sent again."""

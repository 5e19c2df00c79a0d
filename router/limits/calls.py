"""The calls of state.lua, each with what it takes and what becomes of its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from router.client.keyfile import Limits
from router.limits.account import NANO, Period
from router.limits.bound import Most

Argument = str | bytes | int
PREFIX = "router:limits"
KEPT_SECONDS = 3 * 86_400  # after a month's end
NO_LIMIT = -1


class Place(NamedTuple):
    """Where the account of a key is in Redis, in one month."""

    keys: tuple[str, str, str]
    day: str  # of the month
    expires_unix: int

    @classmethod
    def of(cls, key: str, day: Period, month: Period) -> Place:
        """The place for a day and its month."""
        began = datetime.fromtimestamp(day.starts_unix_ns // 10**9, UTC)
        name = f"{PREFIX}:{{{key}}}"  # the braces keep all of a key on one machine of a cluster
        keys = (f"{name}:{began:%Y-%m}", f"{name}:{began:%Y-%m}:holds", f"{name}:minute")
        return cls(keys, f"{began:%d}", month.ends_unix_ns // 10**9 + KEPT_SECONDS)


def nano(usd: float) -> int:
    """Whole nano-dollars, so that sums are exact."""
    return round(usd * NANO)


class Held(NamedTuple):
    """What Redis says of a hold, and of the account after it."""

    verdict: str  # held, unknown, or what refuses it: day, month, requests, tokens
    born: str = ""
    day: tuple[int, int] = (0, 0)  # nano-dollars spent and held
    month: tuple[int, int] = (0, 0)
    left: tuple[float, float] = (0.0, 0.0)  # requests and tokens
    tokens: int = 0  # that were taken, or would have been


class HoldCall:
    """Asks for a hold; `answer` is awaited."""

    lasting = False

    def __init__(self, place: Place, member: str, limits: Limits, most: Most, now_us: int, until_us: int) -> None:
        self.keys, self._place, self._member = place.keys, place, member
        self._limits, self._most = limits, most
        self._now_us, self._until_us = now_us, until_us
        self.billed = True
        self.answer: asyncio.Future[Held | None] = asyncio.get_running_loop().create_future()

    def arguments(self, run: str) -> Sequence[Argument]:
        """As `hold` of the script takes them."""
        limits, most = self._limits, self._most
        day, month = limits.usd_a_day, limits.usd_a_month
        return (
            *("hold", run, self._place.day, self._now_us, self._member, self._until_us, nano(most.usd)),
            int(self.billed),
            NO_LIMIT if day is None else nano(day),
            NO_LIMIT if month is None else nano(month),
            limits.requests_a_minute or NO_LIMIT,
            limits.tokens_a_minute or NO_LIMIT,
            *(most.largest_tokens, most.tokens, self._place.expires_unix),
        )

    def answered(self, answer: list[Any]) -> None:
        """Hand it to who waits."""
        if self.answer.done():
            return
        if answer[0] == b"unknown":
            self.answer.set_result(Held("unknown"))
            return
        verdict, born, day_spent, day_held, month_spent, month_held, requests, tokens, taken = answer
        left = float(requests), float(tokens)
        day, month = (day_spent, day_held), (month_spent, month_held)
        self.answer.set_result(Held(verdict.decode(), born.decode(), day, month, left, taken))

    def failed(self) -> None:
        """Nobody knows whether it is held."""
        if not self.answer.done():
            self.answer.set_result(None)


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

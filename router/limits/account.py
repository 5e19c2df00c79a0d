"""Spending and limits of one key or team: dollars per day and month, requests and tokens per minute. No I/O.

Dollars are held before a request is sent and settled when it ends, so that concurrent requests cannot exceed a budget
together. Callers pass the time.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

from router.client.keyfile import NO_LIMITS, SOFT, Limits, Owner
from router.errors import QuotaError, RateLimitError
from router.limits.bound import Most

MINUTE_NS = 60 * 10**9
NANO = 10**9  # nano-dollars per dollar
Headers = tuple[tuple[bytes, bytes], ...]


class Period:
    """A day or a month (UTC), with the dollars spent and held in it."""

    __slots__ = ("ends_unix_ns", "held_usd", "name", "spent_usd", "starts_unix_ns")

    def __init__(self, name: str, starts: datetime, ends: datetime) -> None:
        self.name = name
        self.starts_unix_ns = int(starts.timestamp()) * 10**9
        self.ends_unix_ns = int(ends.timestamp()) * 10**9
        self.spent_usd = 0.0
        self.held_usd = 0.0  # by requests in progress

    def refusal(self, owner: Owner, usd: float, budget: float) -> QuotaError:
        """The error for a request of `usd` that exceeds the budget."""
        retryable = self.spent_usd + usd <= budget and self.spent_usd < budget
        begins = datetime.fromtimestamp(self.ends_unix_ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        if retryable:
            why = f"requests in progress hold the rest (${self.held_usd:.6f}); try again"
        else:
            why = f"the budget resets at {begins}"
        return QuotaError(
            f"You exceeded your current quota: {owner} has spent ${self.spent_usd:.6f} of ${budget:g} a {self.name}"
            f" (UTC), and this request may cost ${usd:.6f}; {why}.",
            owner,
            again=retryable,
        )


def day_of(unix_ns: int) -> Period:
    """The day that contains a moment."""
    starts = datetime.fromtimestamp(unix_ns // 10**9, UTC).replace(hour=0, minute=0, second=0)
    return Period("day", starts, starts + timedelta(days=1))


def month_of(unix_ns: int) -> Period:
    """The month that contains a moment."""
    starts = datetime.fromtimestamp(unix_ns // 10**9, UTC).replace(day=1, hour=0, minute=0, second=0)
    return Period("month", starts, (starts + timedelta(days=31)).replace(day=1))


class Bucket:
    """A token bucket that holds one minute's limit and refills evenly within a minute."""

    __slots__ = ("_at_unix_ns", "left", "limit")

    def __init__(self, limit: int, now_unix_ns: int) -> None:
        self.limit = limit
        self.left = float(limit)  # negative if more was used than expected
        self._at_unix_ns = now_unix_ns

    @classmethod
    def with_left(cls, limit: int | None, left: float, now_unix_ns: int) -> Bucket | None:
        """A bucket with `left` remaining; None without a limit."""
        if limit is None:
            return None
        bucket = cls(limit, now_unix_ns)
        bucket.left = left
        return bucket

    def fill(self, limit: int, now_unix_ns: int) -> None:
        """Refill for the time since the last call; `limit` may differ from the previous limit."""
        passed = now_unix_ns - self._at_unix_ns
        left = self.left + (limit - self.limit if limit > self.limit else 0)
        if passed > 0:
            left += passed * limit / MINUTE_NS
        self.left = left if left < limit else float(limit)
        self.limit, self._at_unix_ns = limit, now_unix_ns

    def seconds_until(self, needed: float) -> float:
        """Seconds until `needed` is left."""
        return max(needed - self.left, 0.0) * 60.0 / self.limit


class Account:
    """The usage of one key or team, and its limits."""

    def __init__(self, owner: Owner, now_unix_ns: int) -> None:
        self.owner = owner
        self.limits = NO_LIMITS
        self.since_unix_ns = now_unix_ns  # the tables and the journal give the spending before this moment
        self.known = False  # whether that earlier spending has been added
        self.in_dollars = False
        self.day, self.month = day_of(now_unix_ns), month_of(now_unix_ns)
        self._requests: Bucket | None = None
        self._tokens: Bucket | None = None

    def limit(self, limits: Limits) -> None:
        """Apply these limits from now on."""
        self.limits, self.in_dollars = limits, limits.in_dollars
        if limits.requests_a_minute is None:
            self._requests = None
        if limits.tokens_a_minute is None:
            self._tokens = None

    def check(self, most: Most, now_unix_ns: int, *, billed: bool = True) -> int:
        """Check a request against all limits and return the tokens to take. Unbilled requests skip the budgets.

        Raises:
            QuotaError: the request exceeds a budget.
            RateLimitError: the request exceeds a limit per minute.
        """
        limits = self.limits
        if now_unix_ns >= self.day.ends_unix_ns:
            self.turn(now_unix_ns)
        day, month, usd = self.day, self.month, most.usd
        # hot path: avoids a function call for each budget
        budget = limits.usd_a_day
        if billed and budget is not None and (day.spent_usd + day.held_usd + usd > budget or day.spent_usd >= budget):
            raise day.refusal(self.owner, usd, budget)
        budget = limits.usd_a_month
        if (
            billed
            and budget is not None
            and (month.spent_usd + month.held_usd + usd > budget or month.spent_usd >= budget)
        ):
            raise month.refusal(self.owner, usd, budget)
        if limits.requests_a_minute is None and limits.tokens_a_minute is None:
            return 0
        return self._check_rates(most, now_unix_ns)

    def take(self, usd: float, tokens: int) -> None:
        """Hold dollars, and take one request and its tokens from the minute. Call it after `check`."""
        self.day.held_usd += usd
        self.month.held_usd += usd
        if self._requests is not None:
            self._requests.left -= 1.0
        if self._tokens is not None:
            self._tokens.left -= tokens

    def floor(self, now_unix_ns: int) -> float | None:
        """The lower target of the limits if the soft share of a budget is spent or held; else None."""
        if now_unix_ns >= self.day.ends_unix_ns:
            self.turn(now_unix_ns)
        limits = self.limits
        for period, budget in ((self.day, limits.usd_a_day), (self.month, limits.usd_a_month)):
            if budget is not None and period.spent_usd + period.held_usd >= (limits.soft or SOFT) * budget:
                return limits.floor
        return None

    def _check_rates(self, most: Most, now_unix_ns: int) -> int:
        """Check the limits per minute and return the tokens to take."""
        limits, requests, tokens = self.limits, self._requests, self._tokens
        if limits.requests_a_minute is not None:
            if requests is None:
                requests = self._requests = Bucket(limits.requests_a_minute, now_unix_ns)
            requests.fill(limits.requests_a_minute, now_unix_ns)
        if limits.tokens_a_minute is not None:
            if tokens is None:
                tokens = self._tokens = Bucket(limits.tokens_a_minute, now_unix_ns)
            tokens.fill(limits.tokens_a_minute, now_unix_ns)
        if requests is not None and requests.left < 1.0:
            raise self._limited("requests", requests, 1)
        if tokens is None:
            return 0
        # without a limit on the answer, accept the request if its expected tokens fit into a whole minute
        taken = most.largest_tokens if most.largest_tokens < tokens.limit else max(most.tokens, tokens.limit)
        if tokens.left < taken:
            raise self._limited("tokens", tokens, taken)
        return taken

    def _limited(self, kind: str, bucket: Bucket, needed: int) -> RateLimitError:
        short = "RPM" if kind == "requests" else "TPM"
        used = max(math.ceil(bucket.limit - bucket.left), 0)
        usage = f"{kind} per min ({short}): Limit {bucket.limit}"
        if needed > bucket.limit:
            message = f"Request too large for {self.owner} on {usage}, Requested {needed}."
            return RateLimitError(message, kind, ((b"x-should-retry", b"false"), *rates(self)))
        seconds = bucket.seconds_until(needed)
        message = (
            f"Rate limit reached for {self.owner} on {usage}, Used {used}, Requested {needed}. "
            f"Please try again in {duration(seconds)}."
        )
        after = (
            (b"retry-after", b"%d" % max(math.ceil(seconds), 1)),
            (b"retry-after-ms", b"%d" % math.ceil(seconds * 1000)),
        )
        return RateLimitError(message, kind, (*after, *rates(self)))

    def spend(self, usd: float, started_unix_ns: int) -> None:
        """Add the cost of a request without a hold."""
        if started_unix_ns >= self.day.ends_unix_ns:
            self.turn(started_unix_ns)
        for period in (self.day, self.month):
            if period.starts_unix_ns <= started_unix_ns:
                period.spent_usd += usd

    def give_back(self, tokens: int) -> None:
        """Return unused tokens; a negative number takes more."""
        bucket = self._tokens
        if bucket is not None:
            left = bucket.left + tokens
            bucket.left = left if left < bucket.limit else float(bucket.limit)

    def mirror_dollars(self, day: tuple[int, int], month: tuple[int, int]) -> None:
        """Copy nano-dollars (spent, held) from Redis."""
        self.day.spent_usd, self.day.held_usd = day[0] / NANO, day[1] / NANO
        self.month.spent_usd, self.month.held_usd = month[0] / NANO, month[1] / NANO

    def mirror_rates(self, now_unix_ns: int, requests: float, tokens: float) -> None:
        """Copy the remaining requests and tokens from Redis."""
        limits = self.limits
        self._requests = Bucket.with_left(limits.requests_a_minute, requests, now_unix_ns)
        self._tokens = Bucket.with_left(limits.tokens_a_minute, tokens, now_unix_ns)

    def refuse(self, verdict: str, most: Most, needed_tokens: int) -> QuotaError | RateLimitError:
        """The error for a refusal by Redis; `verdict` is day, month, requests or tokens."""
        limits = self.limits
        if verdict == "day" and limits.usd_a_day is not None:
            return self.day.refusal(self.owner, most.usd, limits.usd_a_day)
        if verdict == "month" and limits.usd_a_month is not None:
            return self.month.refusal(self.owner, most.usd, limits.usd_a_month)
        bucket = self._requests if verdict == "requests" else self._tokens
        assert bucket is not None
        return self._limited(verdict, bucket, 1 if verdict == "requests" else needed_tokens)

    def turn(self, now_unix_ns: int) -> None:
        """Start a new day, and a new month if it has changed. Requests in progress settle in their own periods."""
        self.day = day_of(now_unix_ns)
        if now_unix_ns >= self.month.ends_unix_ns:
            self.month = month_of(now_unix_ns)


def rates(*accounts: Account) -> Headers:
    """OpenAI's rate limit headers for this minute; of several accounts, the least that remains."""
    requests = tokens = None
    for account in accounts:  # hot path: avoids a function call for each account
        bucket = account._requests
        if bucket is not None and (requests is None or bucket.left < requests.left):
            requests = bucket
        bucket = account._tokens
        if bucket is not None and (tokens is None or bucket.left < tokens.left):
            tokens = bucket
    headers: list[tuple[bytes, bytes]] = []
    for kind, bucket in ((b"requests", requests), (b"tokens", tokens)):
        if bucket is not None:
            left, reset = max(math.floor(bucket.left), 0), duration(bucket.seconds_until(bucket.limit))
            headers += [
                (b"x-ratelimit-limit-" + kind, b"%d" % bucket.limit),
                (b"x-ratelimit-remaining-" + kind, b"%d" % left),
                (b"x-ratelimit-reset-" + kind, reset.encode()),
            ]
    return tuple(headers)


def duration(seconds: float) -> str:
    """A duration in the format of OpenAI's rate limit headers.

    >>> duration(0.0), duration(0.0125), duration(1.0), duration(59.5), duration(90.0), duration(3600.0)
    ('0s', '13ms', '1s', '59.5s', '1m30s', '1h0m0s')
    """
    milliseconds = math.ceil(seconds * 1000 - 1e-6)
    if 0 < milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    seconds_text = f"{rest / 1000:g}s"
    if hours:
        return f"{hours}h{minutes}m{seconds_text}"
    return f"{minutes}m{seconds_text}" if minutes else seconds_text

"""What a key or a team has spent and may spend: dollars of a day and month, requests and tokens of a minute. No I/O.

Dollars are held before a request is sent and settled when it ends, so that requests at once cannot go over a budget
together. The clock is the caller's.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

from router.client.keyfile import NO_LIMITS, SOFT, Limits, Owner
from router.errors import QuotaError, RateLimitError
from router.limits.bound import Most

MINUTE_NS = 60 * 10**9
NANO = 10**9  # nano-dollars of a dollar
Headers = tuple[tuple[bytes, bytes], ...]


class Period:
    """A day or a month (UTC)."""

    __slots__ = ("ends_unix_ns", "held_usd", "name", "spent_usd", "starts_unix_ns")

    def __init__(self, name: str, starts: datetime, ends: datetime) -> None:
        self.name = name
        self.starts_unix_ns = int(starts.timestamp()) * 10**9
        self.ends_unix_ns = int(ends.timestamp()) * 10**9
        self.spent_usd = 0.0
        self.held_usd = 0.0  # by requests under way

    def refusal(self, owner: Owner, usd: float, budget: float) -> QuotaError:
        """Why `usd` more do not fit a budget."""
        again = self.spent_usd + usd <= budget and self.spent_usd < budget
        begins = datetime.fromtimestamp(self.ends_unix_ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        if again:
            why = f"requests under way may cost the rest (${self.held_usd:.6f}); try again"
        else:
            why = f"it begins anew at {begins}"
        return QuotaError(
            f"You exceeded your current quota: {owner} has spent ${self.spent_usd:.6f} of ${budget:g} a {self.name}"
            f" (UTC), and this request may cost ${usd:.6f}; {why}.",
            owner,
            again=again,
        )


def day_of(unix_ns: int) -> Period:
    """The day of a moment."""
    starts = datetime.fromtimestamp(unix_ns // 10**9, UTC).replace(hour=0, minute=0, second=0)
    return Period("day", starts, starts + timedelta(days=1))


def month_of(unix_ns: int) -> Period:
    """The month of a moment."""
    starts = datetime.fromtimestamp(unix_ns // 10**9, UTC).replace(day=1, hour=0, minute=0, second=0)
    return Period("month", starts, (starts + timedelta(days=31)).replace(day=1))


class Bucket:
    """As much as may be used in a minute; what is used comes back evenly, all of it within a minute."""

    __slots__ = ("_at_unix_ns", "left", "limit")

    def __init__(self, limit: int, now_unix_ns: int) -> None:
        self.limit = limit
        self.left = float(limit)  # below 0 where more was used than was expected
        self._at_unix_ns = now_unix_ns

    @classmethod
    def with_left(cls, limit: int | None, left: float, now_unix_ns: int) -> Bucket | None:
        """A bucket of which so much is left; None without a limit."""
        if limit is None:
            return None
        bucket = cls(limit, now_unix_ns)
        bucket.left = left
        return bucket

    def fill(self, limit: int, now_unix_ns: int) -> None:
        """Give back what the time since the last call gives; `limit` may be another one than before."""
        passed = now_unix_ns - self._at_unix_ns
        left = self.left + (limit - self.limit if limit > self.limit else 0)
        if passed > 0:
            left += passed * limit / MINUTE_NS
        self.left = left if left < limit else float(limit)
        self.limit, self._at_unix_ns = limit, now_unix_ns

    def seconds_until(self, needed: float) -> float:
        """Until so much is left."""
        return max(needed - self.left, 0.0) * 60.0 / self.limit


class Account:
    """What one key, or one team, uses."""

    def __init__(self, owner: Owner, now_unix_ns: int) -> None:
        self.owner = owner
        self.limits = NO_LIMITS
        self.since_unix_ns = now_unix_ns  # what ended before is read from the tables and the journal
        self.known = False  # whether what was spent before is in it
        self.in_dollars = False
        self.day, self.month = day_of(now_unix_ns), month_of(now_unix_ns)
        self._requests: Bucket | None = None
        self._tokens: Bucket | None = None

    def limit(self, limits: Limits) -> None:
        """Hold to these limits from now on."""
        self.limits, self.in_dollars = limits, limits.in_dollars
        if limits.requests_a_minute is None:
            self._requests = None
        if limits.tokens_a_minute is None:
            self._tokens = None

    def check(self, most: Most, now_unix_ns: int, *, billed: bool = True) -> int:
        """Give the tokens to take for a request that fits. One that is not `billed` is held to the minute alone.

        Raises:
            QuotaError: a budget does not hold it.
            RateLimitError: this minute does not.
        """
        limits = self.limits
        if now_unix_ns >= self.day.ends_unix_ns:
            self.turn(now_unix_ns)
        day, month, usd = self.day, self.month, most.usd
        # every request comes by: no call for each budget
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
        """Hold dollars, and take a request and its tokens from this minute; call it after `check`."""
        self.day.held_usd += usd
        self.month.held_usd += usd
        if self._requests is not None:
            self._requests.left -= 1.0
        if self._tokens is not None:
            self._tokens.left -= tokens

    def floor(self, now_unix_ns: int) -> float | None:
        """The target of the limits, once the soft share of a budget is spent or held."""
        if now_unix_ns >= self.day.ends_unix_ns:
            self.turn(now_unix_ns)
        limits = self.limits
        for period, budget in ((self.day, limits.usd_a_day), (self.month, limits.usd_a_month)):
            if budget is not None and period.spent_usd + period.held_usd >= (limits.soft or SOFT) * budget:
                return limits.floor
        return None

    def _check_rates(self, most: Most, now_unix_ns: int) -> int:
        """Whether this minute has a request and its tokens; the tokens."""
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
        # an answer that the client does not limit is no reason to refuse what a whole minute holds
        taken = most.largest_tokens if most.largest_tokens < tokens.limit else max(most.tokens, tokens.limit)
        if tokens.left < taken:
            raise self._limited("tokens", tokens, taken)
        return taken

    def _limited(self, kind: str, bucket: Bucket, needed: int) -> RateLimitError:
        short = "RPM" if kind == "requests" else "TPM"
        used = max(math.ceil(bucket.limit - bucket.left), 0)
        told = f"{kind} per min ({short}): Limit {bucket.limit}"
        if needed > bucket.limit:
            message = f"Request too large for {self.owner} on {told}, Requested {needed}."
            return RateLimitError(message, kind, ((b"x-should-retry", b"false"), *rates(self)))
        seconds = bucket.seconds_until(needed)
        message = (
            f"Rate limit reached for {self.owner} on {told}, Used {used}, Requested {needed}. "
            f"Please try again in {duration(seconds)}."
        )
        after = (
            (b"retry-after", b"%d" % max(math.ceil(seconds), 1)),
            (b"retry-after-ms", b"%d" % math.ceil(seconds * 1000)),
        )
        return RateLimitError(message, kind, (*after, *rates(self)))

    def spend(self, usd: float, started_unix_ns: int) -> None:
        """Add what a request cost for which nothing was held."""
        if started_unix_ns >= self.day.ends_unix_ns:
            self.turn(started_unix_ns)
        for period in (self.day, self.month):
            if period.starts_unix_ns <= started_unix_ns:
                period.spent_usd += usd

    def give_back(self, tokens: int) -> None:
        """Give back tokens that were held and not used; take more where they were too few."""
        bucket = self._tokens
        if bucket is not None:
            left = bucket.left + tokens
            bucket.left = left if left < bucket.limit else float(bucket.limit)

    def mirror_dollars(self, day: tuple[int, int], month: tuple[int, int]) -> None:
        """Take over what Redis has: nano-dollars spent and held."""
        self.day.spent_usd, self.day.held_usd = day[0] / NANO, day[1] / NANO
        self.month.spent_usd, self.month.held_usd = month[0] / NANO, month[1] / NANO

    def mirror_rates(self, now_unix_ns: int, requests: float, tokens: float) -> None:
        """Take over what Redis has left of requests and tokens."""
        limits = self.limits
        self._requests = Bucket.with_left(limits.requests_a_minute, requests, now_unix_ns)
        self._tokens = Bucket.with_left(limits.tokens_a_minute, tokens, now_unix_ns)

    def refuse(self, verdict: str, most: Most, needed_tokens: int) -> QuotaError | RateLimitError:
        """Why Redis refuses a request: by its `day`, `month`, `requests` or `tokens`."""
        limits = self.limits
        if verdict == "day" and limits.usd_a_day is not None:
            return self.day.refusal(self.owner, most.usd, limits.usd_a_day)
        if verdict == "month" and limits.usd_a_month is not None:
            return self.month.refusal(self.owner, most.usd, limits.usd_a_month)
        bucket = self._requests if verdict == "requests" else self._tokens
        assert bucket is not None
        return self._limited(verdict, bucket, 1 if verdict == "requests" else needed_tokens)

    def turn(self, now_unix_ns: int) -> None:
        """Begin a new day, and a new month where it is one; requests under way settle in those they began in."""
        self.day = day_of(now_unix_ns)
        if now_unix_ns >= self.month.ends_unix_ns:
            self.month = month_of(now_unix_ns)


def rates(*accounts: Account) -> Headers:
    """What is left of this minute, in the headers that OpenAI has for it; of several accounts, what is left least."""
    requests = tokens = None
    for account in accounts:  # every answer comes by: no call for each account
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
    """A length of time as OpenAI's rate limit headers have it.

    >>> duration(0.0), duration(0.0125), duration(1.0), duration(59.5), duration(90.0), duration(3600.0)
    ('0s', '13ms', '1s', '59.5s', '1m30s', '1h0m0s')
    """
    milliseconds = math.ceil(seconds * 1000 - 1e-6)
    if 0 < milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    told = f"{rest / 1000:g}s"
    if hours:
        return f"{hours}h{minutes}m{told}"
    return f"{minutes}m{told}" if minutes else told

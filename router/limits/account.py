"""What a key has spent and may still spend: dollars of a day and a month, requests and tokens of a minute. No I/O.

Dollars are held before a request is sent and settled when it ends, so that requests at once cannot go over a budget
together. The clock is the caller's.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

from router.client.keyfile import NO_LIMITS, SOFT, Limits
from router.errors import QuotaError, RateLimitError
from router.journal.writer import Record
from router.limits.bound import Most

MINUTE_NS = 60 * 10**9
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

    def refusal(self, key: str, usd: float, budget: float) -> QuotaError:
        """Why `usd` more do not fit a budget."""
        again = self.spent_usd + usd <= budget and self.spent_usd < budget
        begins = datetime.fromtimestamp(self.ends_unix_ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        if again:
            why = f"requests under way may cost the rest (${self.held_usd:.6f}); try again"
        else:
            why = f"it begins anew at {begins}"
        return QuotaError(
            f"You exceeded your current quota: key {key} has spent ${self.spent_usd:.6f} of ${budget:g} a {self.name}"
            f" (UTC), and this request may cost ${usd:.6f}; {why}.",
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
    """One key's."""

    def __init__(self, key: str, now_unix_ns: int) -> None:
        self.key = key
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

    def hold(self, most: Most, now_unix_ns: int, *, billed: bool = True) -> Booking:
        """Hold what a request may use at most; one that is not `billed` is held to the minute alone.

        Raises:
            QuotaError: a budget does not hold it.
            RateLimitError: this minute does not.
        """
        limits = self.limits
        if now_unix_ns >= self.day.ends_unix_ns:
            self._turn(now_unix_ns)
        day, month, usd = self.day, self.month, most.usd
        # every request comes by: no call for each budget
        budget = limits.usd_a_day
        if billed and budget is not None and (day.spent_usd + day.held_usd + usd > budget or day.spent_usd >= budget):
            raise day.refusal(self.key, usd, budget)
        budget = limits.usd_a_month
        if (
            billed
            and budget is not None
            and (month.spent_usd + month.held_usd + usd > budget or month.spent_usd >= budget)
        ):
            raise month.refusal(self.key, usd, budget)
        tokens = 0
        if limits.requests_a_minute is not None or limits.tokens_a_minute is not None:
            tokens = self._hold_rates(most, now_unix_ns)
        day.held_usd += usd
        month.held_usd += usd
        return Booking(self, usd, tokens, day, month)

    def floor(self, now_unix_ns: int) -> float | None:
        """The target of the limits, once the soft share of a budget is spent or held."""
        if now_unix_ns >= self.day.ends_unix_ns:
            self._turn(now_unix_ns)
        limits = self.limits
        for period, budget in ((self.day, limits.usd_a_day), (self.month, limits.usd_a_month)):
            if budget is not None and period.spent_usd + period.held_usd >= (limits.soft or SOFT) * budget:
                return limits.floor
        return None

    def _hold_rates(self, most: Most, now_unix_ns: int) -> int:
        """Take a request and its tokens from this minute; the tokens."""
        limits, requests, tokens = self.limits, self._requests, self._tokens
        if limits.requests_a_minute is None:
            requests = self._requests = None
        elif requests is None:
            requests = self._requests = Bucket(limits.requests_a_minute, now_unix_ns)
        else:
            requests.fill(limits.requests_a_minute, now_unix_ns)
        if limits.tokens_a_minute is None:
            tokens = self._tokens = None
        elif tokens is None:
            tokens = self._tokens = Bucket(limits.tokens_a_minute, now_unix_ns)
        else:
            tokens.fill(limits.tokens_a_minute, now_unix_ns)
        if requests is not None and requests.left < 1.0:
            raise self._limited("requests", requests, 1)
        if tokens is None:
            taken = 0
        else:
            # an answer that the client does not limit is no reason to refuse what a whole minute holds
            taken = most.largest_tokens if most.largest_tokens < tokens.limit else max(most.tokens, tokens.limit)
            if tokens.left < taken:
                raise self._limited("tokens", tokens, taken)
            tokens.left -= taken
        if requests is not None:
            requests.left -= 1.0
        return taken

    def _limited(self, kind: str, bucket: Bucket, needed: int) -> RateLimitError:
        short = "RPM" if kind == "requests" else "TPM"
        used = max(math.ceil(bucket.limit - bucket.left), 0)
        told = f"{kind} per min ({short}): Limit {bucket.limit}"
        if needed > bucket.limit:
            message = f"Request too large for key {self.key} on {told}, Requested {needed}."
            return RateLimitError(message, kind, ((b"x-should-retry", b"false"), *self.rates()))
        seconds = bucket.seconds_until(needed)
        message = (
            f"Rate limit reached for key {self.key} on {told}, Used {used}, Requested {needed}. "
            f"Please try again in {duration(seconds)}."
        )
        after = (
            (b"retry-after", b"%d" % max(math.ceil(seconds), 1)),
            (b"retry-after-ms", b"%d" % math.ceil(seconds * 1000)),
        )
        return RateLimitError(message, kind, (*after, *self.rates()))

    def rates(self) -> Headers:
        """What is left of this minute, in the headers that OpenAI has for it."""
        headers: list[tuple[bytes, bytes]] = []
        for kind, bucket in ((b"requests", self._requests), (b"tokens", self._tokens)):
            if bucket is not None:
                left, reset = max(math.floor(bucket.left), 0), duration(bucket.seconds_until(bucket.limit))
                headers += [
                    (b"x-ratelimit-limit-" + kind, b"%d" % bucket.limit),
                    (b"x-ratelimit-remaining-" + kind, b"%d" % left),
                    (b"x-ratelimit-reset-" + kind, reset.encode()),
                ]
        return tuple(headers)

    def spend(self, usd: float, started_unix_ns: int) -> None:
        """Add what a request cost for which nothing was held."""
        if started_unix_ns >= self.day.ends_unix_ns:
            self._turn(started_unix_ns)
        for period in (self.day, self.month):
            if period.starts_unix_ns <= started_unix_ns:
                period.spent_usd += usd

    def give_back(self, tokens: int) -> None:
        """Give back tokens that were held and not used; take more where they were too few."""
        bucket = self._tokens
        if bucket is not None:
            left = bucket.left + tokens
            bucket.left = left if left < bucket.limit else float(bucket.limit)

    def _turn(self, now_unix_ns: int) -> None:
        """Begin a new day, and a new month where it is one; requests under way settle in those they began in."""
        self.day = day_of(now_unix_ns)
        if now_unix_ns >= self.month.ends_unix_ns:
            self.month = month_of(now_unix_ns)


class Booking:
    """What one request holds, until it is settled."""

    __slots__ = ("_day", "_month", "_settled", "_tokens", "_usd", "account")

    def __init__(self, account: Account, usd: float, tokens: int, day: Period, month: Period) -> None:
        self.account = account
        self._usd, self._tokens = usd, tokens
        self._day, self._month = day, month
        self._settled = False

    def settle(self, record: Record, *, begun: bool | None = None) -> None:
        """Spend what the request cost, and give back the rest; `begun`: a model may have billed it.

        Where it is not known what was billed, what was held counts as spent, and the record says so in `kept_usd`.
        """
        if self._settled:
            return
        self._settled = True
        usd, day, month, spent = self._usd, self._day, self._month, record.cost_usd
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
        day.held_usd -= usd
        month.held_usd -= usd
        day.spent_usd += spent
        month.spent_usd += spent
        if self._tokens:
            usage = record.usage
            if usage is not None:
                used = usage["input_tokens"] + usage["output_tokens"]
                for attempt in record.wasted:
                    if attempt["usage"] is not None:
                        used += attempt["usage"]["input_tokens"] + attempt["usage"]["output_tokens"]
                self.account.give_back(self._tokens - used)
            elif not begun:
                self.account.give_back(self._tokens)


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

"""A budget of retries for each upstream, so that retries do not multiply the load during an outage."""

from __future__ import annotations

RETRY_SHARE = 0.2  # of the requests
RETRIES_PER_SECOND = 1.0
MAX_SAVED_RETRIES = 30.0


class RetryBudget:
    """Allows retries for a share of the requests, and a few per second in addition."""

    def __init__(self) -> None:
        self.requests = 0  # since the last retry
        self._balance = MAX_SAVED_RETRIES
        self._at = 0.0

    def spend(self, now: float) -> bool:
        """Whether a retry is allowed at `now` (seconds, monotonic). An allowed retry reduces the budget."""
        passed, self._at = now - self._at, now
        earned, self.requests = self.requests * RETRY_SHARE + passed * RETRIES_PER_SECOND, 0
        self._balance = min(self._balance + earned, MAX_SAVED_RETRIES)
        if self._balance < 1.0:
            return False
        self._balance -= 1.0
        return True

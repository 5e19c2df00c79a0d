"""How many retries an upstream gets: an outage is not multiplied by those who wait for it."""

from __future__ import annotations

RETRY_SHARE = 0.2  # of the requests
RETRIES_A_SECOND = 1.0
MOST_RETRIES = 30.0  # that may be saved up


class RetryBudget:
    """Retries are a share of the requests, and a few beside."""

    def __init__(self) -> None:
        self.requests = 0  # since the last retry
        self._balance = MOST_RETRIES
        self._at = 0.0

    def spend(self, now: float) -> bool:
        """Whether a retry may be made, which is paid with it."""
        passed, self._at = now - self._at, now
        earned, self.requests = self.requests * RETRY_SHARE + passed * RETRIES_A_SECOND, 0
        self._balance = min(self._balance + earned, MOST_RETRIES)
        if self._balance < 1.0:
            return False
        self._balance -= 1.0
        return True

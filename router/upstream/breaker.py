"""A circuit breaker. It stops requests to a model that keeps failing, and then probes it with one request at a time."""

from __future__ import annotations

FAILURES = 5  # consecutive failures that open the circuit
FIRST_PAUSE_SECONDS = 5.0
MAX_PAUSE_SECONDS = 60.0


class Breaker:
    """The circuit of a model or of one of its upstreams. `now` is in seconds of a monotonic clock.

    >>> breaker = Breaker()
    >>> for _ in range(FAILURES):
    ...     breaker.record_failure(now=0.0)
    >>> breaker.allows(now=4.9), breaker.allows(now=5.0), breaker.allows(now=5.0)  # only one probe is allowed
    (False, True, False)
    >>> breaker.record_success()
    >>> breaker.allows(now=5.1)
    True
    """

    __slots__ = ("_failures", "_open_until", "_pause", "_probing")

    def __init__(self) -> None:
        self._failures = 0
        self._pause = FIRST_PAUSE_SECONDS
        self._open_until: float | None = None
        self._probing = False

    @property
    def is_open(self) -> bool:
        """Whether the model receives no requests, or only probes."""
        return self._open_until is not None

    def would_allow(self, now: float) -> bool:
        """Whether `allows` would return true. Changes nothing."""
        return self._open_until is None or (now >= self._open_until and not self._probing)

    def allows(self, now: float) -> bool:
        """Whether a request may be sent. If the circuit is open, that request is the probe."""
        if self._open_until is None:
            return True
        if now < self._open_until or self._probing:
            return False
        self._probing = True
        return True

    def record_success(self) -> None:
        """Close the circuit, because the model answered."""
        if self._failures or self._open_until is not None:
            self.__init__()  # type: ignore[misc]

    def record_failure(self, now: float) -> None:
        """Count a failure of the model. Opens the circuit, or extends the pause after a failed probe."""
        self._failures += 1
        if self._open_until is not None and self._probing:
            self._pause = min(self._pause * 2, MAX_PAUSE_SECONDS)
            self._open_until = now + self._pause
            self._probing = False
        elif self._open_until is None and self._failures >= FAILURES:
            self._open_until = now + self._pause

    def release_probe(self) -> None:
        """Allow another probe, because the request ended without a result, such as when its client disconnected."""
        self._probing = False

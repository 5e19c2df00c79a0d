"""A circuit breaker: a model that keeps failing is left alone for a while, then tried by one request at a time."""

from __future__ import annotations

FAILURES = 5  # in a row, after which the circuit opens
FIRST_PAUSE_SECONDS = 5.0
LONGEST_PAUSE_SECONDS = 60.0


class Breaker:
    """The circuit of a model or one of its upstreams. Time is an argument, in seconds of a clock that never goes back.

    >>> breaker = Breaker()
    >>> for _ in range(FAILURES):
    ...     breaker.failed(now=0.0)
    >>> breaker.allows(now=4.9), breaker.allows(now=5.0), breaker.allows(now=5.0)  # only one probe passes
    (False, True, False)
    >>> breaker.succeeded()
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
        """Whether requests are kept away, or only probed with."""
        return self._open_until is not None

    def would_allow(self, now: float) -> bool:
        """Whether `allows` would be true; nothing is changed."""
        return self._open_until is None or (now >= self._open_until and not self._probing)

    def allows(self, now: float) -> bool:
        """Whether a request may be sent; one that may, while the circuit is open, is the probe."""
        if self._open_until is None:
            return True
        if now < self._open_until or self._probing:
            return False
        self._probing = True
        return True

    def succeeded(self) -> None:
        """The model answered."""
        if self._failures or self._open_until is not None:
            self.__init__()  # type: ignore[misc]  # back to the beginning

    def failed(self, now: float) -> None:
        """The model did not answer, or with a fault of its own."""
        self._failures += 1
        if self._open_until is not None and self._probing:
            self._pause = min(self._pause * 2, LONGEST_PAUSE_SECONDS)
            self._open_until = now + self._pause
            self._probing = False
        elif self._open_until is None and self._failures >= FAILURES:
            self._open_until = now + self._pause

    def released(self) -> None:
        """The request ended without telling anything of the model, since its client left."""
        self._probing = False

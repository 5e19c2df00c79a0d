"""In which order the upstreams of one model are asked: by priority, within one by weight, the same for the same key.

Weighted rendezvous hashing: each upstream draws a number from the key and its own label, and the highest comes first.
With u uniform in (0, 1), -weight / ln(u) is the highest with a probability that is the weight's share of the sum
(Schindelhauer and Schomaker, "Weighted distributed hash tables", SPAA 2005). It needs no state, it is the same in every
worker and replica, and an upstream that is left out changes the place of its own keys only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from hashlib import blake2b

from router.upstream.endpoints import Endpoint

_BITS = 52  # of the numbers drawn, so that none of them rounds to 1


def in_order(endpoints: Sequence[Endpoint], key: bytes) -> list[Endpoint]:
    """The upstreams of a model in the order in which they are asked for `key`.

    >>> a, b, spare = (Endpoint(None, None, label=label, priority=label == "c") for label in "abc")
    >>> [[each.label for each in in_order((spare, a, b), key)] for key in (b"1", b"3", b"3")]
    [['a', 'b', 'c'], ['b', 'a', 'c'], ['b', 'a', 'c']]
    """
    return sorted(endpoints, key=lambda endpoint: (endpoint.priority, -_score(endpoint, key)))


def _score(endpoint: Endpoint, key: bytes) -> float:
    drawn = int.from_bytes(blake2b(endpoint.label.encode() + b"\0" + key, digest_size=8).digest()) >> (64 - _BITS)
    return -endpoint.weight / math.log((drawn + 0.5) / 2**_BITS)


def is_usable(endpoint: Endpoint, now: float) -> bool:
    """Whether a request may be sent there now, if only as a probe."""
    return endpoint.health is None or endpoint.health.breaker.would_allow(now)

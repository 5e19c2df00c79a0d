"""The order in which the upstreams of a model are tried: by priority, then by weight, the same for the same key.

Weighted rendezvous hashing: each upstream draws a number from the key and its label, and the highest number is first.
With u uniform in (0, 1), -weight / ln(u) is the highest with probability weight / sum of weights (Schindelhauer and
Schomaker, "Weighted distributed hash tables", SPAA 2005). The order needs no state and is the same in every worker and
replica. Removing an upstream changes only the order of the keys for which it was first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from hashlib import blake2b

from router.upstream.endpoints import Endpoint

_BITS = 52  # of the drawn numbers, so that none of them rounds to 1


def order_endpoints(endpoints: Sequence[Endpoint], key: bytes) -> list[Endpoint]:
    """The upstreams of a model in the order in which they are tried for `key`.

    >>> a, b, spare = (Endpoint(None, None, label=label, priority=label == "c") for label in "abc")
    >>> [[each.label for each in order_endpoints((spare, a, b), key)] for key in (b"1", b"3", b"3")]
    [['a', 'b', 'c'], ['b', 'a', 'c'], ['b', 'a', 'c']]
    """
    return sorted(endpoints, key=lambda endpoint: (endpoint.priority, -_score(endpoint, key)))


def _score(endpoint: Endpoint, key: bytes) -> float:
    drawn = int.from_bytes(blake2b(endpoint.label.encode() + b"\0" + key, digest_size=8).digest()) >> (64 - _BITS)
    return -endpoint.weight / math.log((drawn + 0.5) / 2**_BITS)


def accepts_requests(endpoint: Endpoint, now: float) -> bool:
    """Whether a request, or at least a probe, may be sent to the upstream at `now`."""
    return endpoint.health is None or endpoint.health.breaker.would_allow(now)

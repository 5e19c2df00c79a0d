"""Who may ask: the keys that clients present."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

from pydantic import SecretStr

from router.errors import BadKeyError, BadRequestError

_KNOWN_DIGESTS = 10_000
_CREDENTIALS = (b"authorization", b"api-key")


class Keys:
    """The keys that are accepted; with none, every caller is, and `serve` keeps to loopback."""

    def __init__(self, keys: Iterable[SecretStr]) -> None:
        self._keys = tuple(key.get_secret_value().encode() for key in keys)
        self.alone = len(self._keys) < 2  # nobody to be told apart from
        self._ids: dict[bytes, str] = {}  # by the digest of a key: no key is kept that is not ours

    def check(self, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """The digest by which a caller's key is known in records; "" for none.

        Raises:
            BadKeyError: keys are needed, and this is none of them.
            BadRequestError: there are several, of which others may be read elsewhere.
        """
        presented = _presented(headers)
        # every key is compared, each in constant time: what is told is only whether one fits
        if self._keys and sum([hmac.compare_digest(presented, key) for key in self._keys]) == 0:
            problem = "Incorrect API key provided." if presented else "You didn't provide an API key."
            raise BadKeyError(f"{problem} Present one of this router's keys as 'Authorization: Bearer KEY'.")
        return self._id(presented) if presented else ""

    def _id(self, key: bytes) -> str:
        digest = hashlib.sha256(key)
        known = self._ids.get(digest.digest())
        if known is None:
            if len(self._ids) >= _KNOWN_DIGESTS:
                self._ids.clear()
            known = self._ids[digest.digest()] = digest.hexdigest()[:16]
        return known


def _presented(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    found = None
    for header in headers:
        if header[0] in _CREDENTIALS:
            if found is not None:
                raise BadRequestError("There are several credentials; send one, as 'Authorization: Bearer KEY'.")
            found = header
    if found is None:
        return b""
    if found[0] == b"api-key":
        return found[1]
    scheme, _, key = found[1].partition(b" ")
    return key.strip() if scheme.lower() == b"bearer" else b""

"""Paths of requests that are passed through: which are safe, and which right a key needs for them. Pure."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from router.client.keyfile import ACCOUNT

MAX_DECODINGS = 4  # how often a path may be percent-encoded


def escapes_base_path(path: bytes) -> bool:
    """Whether a server that decodes the path, once or more often, could resolve it to a parent directory.

    >>> escapes_base_path(b"/models/org%2Fname"), escapes_base_path(b"/x/%252e%252e%5cy")
    (False, True)
    >>> escapes_base_path(b"/x/..;/y")
    True
    """
    for _ in range(MAX_DECODINGS):
        if any(part.partition(b";")[0] in (b"..", b".") for part in path.replace(b"\\", b"/").split(b"/")):
            return True
        decoded = unquote_to_bytes(path)
        if decoded == path:
            return False
        path = decoded
    return True


def required_right(method: str, raw_path: bytes) -> str:
    """The right that a key needs for a request that is passed through; `account` for all that are not listed here.

    >>> required_right("POST", b"/v1/embeddings"), required_right("GET", b"/v1/models/x")
    ('embeddings', 'models')
    >>> required_right("DELETE", b"/v1/models/x")
    'account'
    """
    if method == "POST" and raw_path == b"/v1/embeddings":
        return "embeddings"
    if method in ("GET", "HEAD") and (raw_path == b"/v1/models" or raw_path.startswith(b"/v1/models/")):
        return "models"
    return ACCOUNT

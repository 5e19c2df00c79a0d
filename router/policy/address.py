"""URLs without credentials, for display."""

from __future__ import annotations


def mask_credentials(url: str) -> str:
    """A URL with its user name and password masked, even if the URL is invalid.

    >>> mask_credentials("htp://ada:se/cr@t@example.org/v1"), mask_credentials("http://example.org/v1")
    ('htp://[login]@example.org/v1', 'http://example.org/v1')
    """
    login, at, rest = url.rpartition("@")
    scheme, colon, _ = login.partition("://")
    return (f"{scheme}://[login]@" if colon and scheme.isalnum() else "[login]@") + rest if at else url

"""Addresses as they may be shown."""

from __future__ import annotations


def without_login(url: str) -> str:
    """An address without who logs in and with what password, however wrong it is.

    >>> without_login("htp://ada:se/cr@t@example.org/v1"), without_login("http://example.org/v1")
    ('htp://[login]@example.org/v1', 'http://example.org/v1')
    """
    login, at, rest = url.rpartition("@")
    scheme, colon, _ = login.partition("://")
    return (f"{scheme}://[login]@" if colon and scheme.isalnum() else "[login]@") + rest if at else url

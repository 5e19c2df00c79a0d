"""Protection against web pages of other sites. Every request is checked before anything else. No I/O.

A browser sends any request that a page asks for, also to this machine. The headers `Origin` and `Sec-Fetch-Site` (Fetch
Metadata), which pages cannot forge, tell from which site the page came. A page may also resolve a domain of its own to
this machine (DNS rebinding); the header `Host` contains that domain. Programs other than browsers send neither `Origin`
nor `Sec-Fetch-Site`.
"""

from __future__ import annotations

from collections.abc import Iterable

from router.client.keys import Keys
from router.errors import ForbiddenOriginError, MethodNotAllowedError, RouterError
from router.settings import is_loopback
from router.upstream.calls import Headers

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")  # TRACE would reveal the upstream's key
_METHODS = frozenset(METHODS)
_FOREIGN_SITES = (b"cross-site", b"same-site")
_CHECKED_HEADERS = (b"host", b"origin", b"sec-fetch-site")
_PREFLIGHT_SECONDS = b"600"
_MAX_KNOWN_HOSTS = 100
_MAX_REQUEST_HEADERS_BYTES = 2000  # of the header names that a preflight request lists
_HOST_MESSAGE = (
    "Without API keys, the router accepts only the local host names of this machine. "
    "Allow other names with ROUTER_HOSTS, or create a key with `router keys add NAME`."
)
_ORIGIN_MESSAGE = "Requests of web pages of other sites are not allowed. Allow a site with ROUTER_CORS_ORIGINS."


class OriginPolicy:
    """Decides which requests are accepted, by their method and headers."""

    def __init__(self, hosts: Iterable[str], origins: Iterable[str], keys: Keys) -> None:
        """`hosts` are accepted in addition to loopback names, `origins` are the sites whose pages may send requests."""
        self._hosts = frozenset(host.lower().strip("[]") for host in hosts)
        self._origins = frozenset(origin.lower().rstrip("/").encode() for origin in origins)
        self._keys = keys  # if keys are required, every host is accepted, because a page has no key
        self._known_hosts: set[bytes] = set()  # `Host` headers that were accepted before

    def check(self, method: str, headers: Headers) -> RouterError | None:
        """The error for a request that is not accepted; None for one that is."""
        if method not in _METHODS:
            return MethodNotAllowedError(f"The method {method[:20]} is not supported.", allow=", ".join(METHODS))
        host = origin = site = b""
        for name, value in headers:
            if name in _CHECKED_HEADERS:
                if name == b"host":
                    host = value
                elif name == b"origin":
                    origin = value
                else:
                    site = value
        if not self._keys.required and host not in self._known_hosts and not self._accepts_host(host):
            return ForbiddenOriginError(_HOST_MESSAGE)
        if not origin and not site:  # not a browser
            return None
        return self._check_page(method, headers, host, origin, site)

    def allowed_origin(self, headers: Headers) -> bytes | None:
        """The origin of the page that sends a request, if the settings allow it; otherwise None."""
        if not self._origins:
            return None
        origin = dict(headers).get(b"origin", b"")
        return origin if origin.lower() in self._origins else None

    def _accepts_host(self, host: bytes) -> bool:
        name = _host_name(host.decode("latin-1").lower())
        accepted = not host or is_loopback(name) or name in self._hosts
        if accepted and len(self._known_hosts) < _MAX_KNOWN_HOSTS:
            self._known_hosts.add(host)
        return accepted

    def _check_page(self, method: str, headers: Headers, host: bytes, origin: bytes, site: bytes) -> RouterError | None:
        if origin.lower() in self._origins:
            return None
        if origin and origin.lower().partition(b"://")[2] != host.lower():
            return ForbiddenOriginError(_ORIGIN_MESSAGE)
        if site not in _FOREIGN_SITES:
            return None
        values = dict(headers)
        if (
            method == "GET"
            and values.get(b"sec-fetch-mode") == b"navigate"
            and values.get(b"sec-fetch-dest") == b"document"
        ):
            return None  # the user follows a link: the page with the link cannot read the response
        return ForbiddenOriginError(_ORIGIN_MESSAGE)


def preflight_headers(origin: bytes | None, headers: Headers) -> Headers:
    """Response headers for an OPTIONS request, in addition to `cors_headers`.

    `origin` is the result of `OriginPolicy.allowed_origin`.
    """
    allow = ", ".join(METHODS).encode()
    if origin is None:
        return [(b"allow", allow)]
    values = dict(headers)
    response = [
        (b"access-control-allow-methods", allow),
        (
            b"access-control-allow-headers",
            values.get(b"access-control-request-headers", b"")[:_MAX_REQUEST_HEADERS_BYTES],
        ),
        (b"access-control-max-age", _PREFLIGHT_SECONDS),
    ]
    if b"access-control-request-private-network" in values:
        response.append((b"access-control-allow-private-network", b"true"))
    return response


def cors_headers(origin: bytes) -> Headers:
    """Response headers that allow pages of `origin` to read the response."""
    return [
        (b"access-control-allow-origin", origin),
        (b"access-control-expose-headers", b"*"),
        (b"vary", b"Origin"),
    ]


def _host_name(host: str) -> str:
    """The name in a `Host` header, without the port.

    >>> _host_name("localhost:8000"), _host_name("[::1]:8000"), _host_name("127.0.0.1")
    ('localhost', '::1', '127.0.0.1')
    """
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if ":" in host else host

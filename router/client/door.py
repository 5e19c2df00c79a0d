"""Who may knock: web pages of other sites may not, whatever they send. In front of everything, and no I/O.

A browser sends what any page asks it to send, also to this machine, and says from where it comes: `Origin` and
`Sec-Fetch-Site` (Fetch Metadata) are headers that no page can forge. A page may also lead a name of its own to this
machine (DNS rebinding); that name stands in `Host`. Programs send neither of the first two.
"""

from __future__ import annotations

from collections.abc import Iterable

from router.client.keys import Keys
from router.errors import ForbiddenOriginError, MethodNotAllowedError, RouterError
from router.settings import is_loopback
from router.upstream.calls import Headers

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")  # TRACE would show the upstream's key
_METHODS = frozenset(METHODS)
_FOREIGN = (b"cross-site", b"same-site")
_SENT = (b"host", b"origin", b"sec-fetch-site")
_PREFLIGHT_SECONDS = b"600"
_HOST = (
    "Without keys this machine answers to its own names alone; ROUTER_HOSTS names others, `router keys add` makes keys."
)
_ORIGIN = "A page of another site asks; ROUTER_CORS_ORIGINS names the sites whose pages may."
_MOST_BYTES = 2000  # of the headers that a page asks for


class Door:
    """Which requests are let in, by their method and their headers."""

    def __init__(self, hosts: Iterable[str], origins: Iterable[str], keys: Keys) -> None:
        self._hosts = frozenset(host.lower().strip("[]") for host in hosts)
        self._origins = frozenset(origin.lower().rstrip("/").encode() for origin in origins)
        self._keys = keys  # with any, every host is ours: a page has no key
        self._known: set[bytes] = set()  # hosts that were let in

    def refusal(self, method: str, headers: Headers) -> RouterError | None:
        """Why a request is not let in, or None."""
        if method not in _METHODS:
            return MethodNotAllowedError(
                f"{method[:20]} is not a method that is answered here.", allow=", ".join(METHODS)
            )
        host = origin = site = b""
        for name, value in headers:
            if name in _SENT:
                if name == b"host":
                    host = value
                elif name == b"origin":
                    origin = value
                else:
                    site = value
        if not self._keys.keyed and host not in self._known and not self._is_ours(host):
            return ForbiddenOriginError(_HOST)
        if not origin and not site:  # no browser
            return None
        return self._foreign(method, headers, host, origin, site)

    def allowed(self, headers: Headers) -> bytes | None:
        """The origin of the page that asks, where the settings name it."""
        if not self._origins:
            return None
        origin = dict(headers).get(b"origin", b"")
        return origin if origin.lower() in self._origins else None

    def _is_ours(self, host: bytes) -> bool:
        name = _name(host.decode("latin-1").lower())
        ours = not host or is_loopback(name) or name in self._hosts
        if ours and len(self._known) < 100:
            self._known.add(host)
        return ours

    def _foreign(self, method: str, headers: Headers, host: bytes, origin: bytes, site: bytes) -> RouterError | None:
        if origin.lower() in self._origins:
            return None
        if origin and origin.lower().partition(b"://")[2] != host.lower():
            return ForbiddenOriginError(_ORIGIN)
        if site not in _FOREIGN:
            return None
        named = dict(headers)
        if (
            method == "GET"
            and named.get(b"sec-fetch-mode") == b"navigate"
            and named.get(b"sec-fetch-dest") == b"document"
        ):
            return None  # a link that is followed does no harm: the page that holds it reads nothing
        return ForbiddenOriginError(_ORIGIN)


def preflight(origin: bytes | None, headers: Headers) -> Headers:
    """The headers by which an OPTIONS request is answered, beside `shared`; `origin` as `Door.allowed` gives it."""
    allow = ", ".join(METHODS).encode()
    if origin is None:
        return [(b"allow", allow)]
    named = dict(headers)
    told = [
        (b"access-control-allow-methods", allow),
        (b"access-control-allow-headers", named.get(b"access-control-request-headers", b"")[:_MOST_BYTES]),
        (b"access-control-max-age", _PREFLIGHT_SECONDS),
    ]
    if b"access-control-request-private-network" in named:
        told.append((b"access-control-allow-private-network", b"true"))
    return told


def shared(origin: bytes) -> Headers:
    """The headers by which a browser lets a page of `origin` read an answer."""
    return [
        (b"access-control-allow-origin", origin),
        (b"access-control-expose-headers", b"*"),
        (b"vary", b"Origin"),
    ]


def _name(host: str) -> str:
    """The name in a `Host` header, without its port.

    >>> _name("localhost:8000"), _name("[::1]:8000"), _name("127.0.0.1")
    ('localhost', '::1', '127.0.0.1')
    """
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if ":" in host else host

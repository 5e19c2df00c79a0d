"""The proxy for an address, by a setting and the environment. No I/O."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import unquote, urlsplit

NONE = "none"  # value of the setting for no proxy, overriding the environment
DEFAULT_PORT = 80
_HOST = re.compile(r"[A-Za-z0-9._:%-]+")


class ProxyAddressError(ValueError):
    """A variable is not the address of a proxy. The message names the variable but not its value, a possible secret."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy. Its `repr` has no credentials."""

    host: str
    port: int
    url: str = field(repr=False)  # with the credentials, for other clients
    authorization: bytes | None = field(default=None, repr=False)  # the value of Proxy-Authorization

    @classmethod
    def parse(cls, url: str, source: str) -> Proxy:
        """Read the address of a proxy: `http://[user:password@]host[:port]`; the scheme is optional.

        Raises:
            ProxyAddressError: it is not such an address. The message names the variable `source`.
        """
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            host, port = parts.hostname, parts.port
            user, password = unquote(parts.username or ""), unquote(parts.password or "")
        except ValueError:
            host = None
        if not host or not _HOST.fullmatch(host):
            raise ProxyAddressError(f"{source} is not the address of a proxy such as http://proxy.example.com:3128")
        if parts.scheme != "http":
            raise ProxyAddressError(f"{source} begins with {parts.scheme}://, and only http:// proxies are supported")
        login = base64.b64encode(f"{user}:{password}".encode()) if user or password else None
        shown, port = f"[{host}]" if ":" in host else host, port or DEFAULT_PORT
        before, at, _ = parts.netloc.rpartition("@")
        return cls(host, port, f"http://{before}{at}{shown}:{port}", b"Basic " + login if login else None)

    @property
    def name(self) -> str:
        """Host and port, without credentials."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Proxies:
    """The proxies for http and https, and the addresses that need none."""

    http: tuple[str, str] | None = field(default=None, repr=False)  # the variable and its value
    https: tuple[str, str] | None = field(default=None, repr=False)
    exempt: tuple[str, ...] = ()  # the entries of NO_PROXY

    @classmethod
    def read(cls, setting: str, environment: Mapping[str, str]) -> Proxies:
        """Read the setting `ROUTER_PROXY`, which overrides the environment's proxies; "" keeps them, "none" disables
        them. NO_PROXY applies to both. Blank variables count as unset; lower case takes precedence over upper case.

        Raises:
            ProxyAddressError: the setting is not the address of a proxy.
        """
        no_proxy = _first(environment, "no_proxy", "NO_PROXY")
        exempt = tuple(re.split(r"[,\s]+", no_proxy[1])) if no_proxy else ()
        if setting.strip().lower() == NONE:
            return cls()
        if setting.strip():
            configured = ("ROUTER_PROXY", setting.strip())
            Proxy.parse(*reversed(configured))
            return cls(configured, configured, exempt)
        http, https = (
            _first(environment, f"{scheme}_proxy", f"{scheme.upper()}_PROXY", "all_proxy", "ALL_PROXY")
            for scheme in ("http", "https")
        )
        return cls(http, https, exempt)

    def proxy_for(self, host: str, port: int, *, tls: bool) -> Proxy | None:
        """The proxy for `host`, or None. Connections to this machine use no proxy.

        Raises:
            ProxyAddressError: the variable is not the address of a proxy.
        """
        variable = self.https if tls else self.http
        if variable is None:
            return None
        host = host.lower().rstrip(".")
        address = _address(host)
        if _is_this_machine(host, address) or any(_matches(entry, host, address, port) for entry in self.exempt):
            return None
        return Proxy.parse(variable[1], variable[0])


Address = IPv4Address | IPv6Address


def _first(environment: Mapping[str, str], *names: str) -> tuple[str, str] | None:
    """The first variable that is not blank, with its value."""
    return next(((name, value) for name in names if (value := environment.get(name, "").strip())), None)


def _address(text: str) -> Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _is_this_machine(host: str, address: Address | None) -> bool:
    if address is not None:
        return address.is_loopback or address.is_unspecified
    return host == "localhost" or host.endswith(".localhost")


def _matches(entry: str, host: str, address: Address | None, port: int) -> bool:
    """Whether an entry of NO_PROXY matches the host: `*`, a domain with its subdomains, an address, or a network.

    >>> _matches("example.com:443", "api.example.com", None, 443), _matches("example.com", "badexample.com", None, 443)
    (True, False)
    """
    if entry == "*":
        return True
    if "/" in entry:
        try:
            return address is not None and address in ip_network(entry.replace("[", "").replace("]", ""), strict=False)
        except ValueError:
            return False
    name, colon, entry_port = entry.lower().rpartition(":")
    if not colon or (name.count(":") and not name.endswith("]")):  # no port: a name, or an IPv6 address
        name, entry_port = entry.lower(), ""
    if entry_port and entry_port != str(port):
        return False
    if address is not None:
        return _address(name.strip("[]")) == address
    name = name.removeprefix("*").strip(".")
    return bool(name) and (host == name or host.endswith("." + name))

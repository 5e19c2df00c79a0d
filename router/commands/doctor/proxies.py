"""Messages about proxies: their name without credentials, and the remedy when a proxy fails."""

from __future__ import annotations

from router.policy.network import Network
from router.upstream.calls import Origin, ProxyError, ProxyRefusedError
from router.upstream.standalone_call import NoResponseError


def proxied(origin: Origin, network: Network) -> str:
    """A suffix for the address of a server that names the proxy in use; empty without a proxy."""
    proxy = network.proxies.proxy_for(origin.host, origin.port, tls=origin.tls)
    return "" if proxy is None else f" (through the proxy {proxy.name})"


def proxy_remedy(error: NoResponseError) -> str:
    """The remedy when a proxy caused the error; empty otherwise."""
    cause = error.__cause__
    if isinstance(cause, ProxyRefusedError):
        if cause.status == 407:
            return "Add the proxy's user and password to ROUTER_PROXY or HTTPS_PROXY: http://user:password@host:port"
        if cause.status in (502, 503, 504):
            return "Check the address, and that the proxy can resolve and reach it. Hosts in NO_PROXY bypass the proxy"
        return f"Ask the proxy's administrator to allow {cause.target}, or add the host to NO_PROXY to bypass the proxy"
    if isinstance(cause, ProxyError):
        return "Check ROUTER_PROXY, HTTPS_PROXY or HTTP_PROXY; ROUTER_PROXY=none disables the proxy"
    return ""

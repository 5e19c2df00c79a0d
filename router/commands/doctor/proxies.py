"""What is said of a proxy that leads to a server: its name without its credentials, and what its refusal means."""

from __future__ import annotations

from router.policy.network import Network
from router.upstream.calls import Origin, ProxyError, ProxyRefusedError
from router.upstream.standalone_call import NoResponseError


def proxied(origin: Origin, network: Network) -> str:
    """By which proxy a server was reached, to follow its address; nothing where there is none."""
    proxy = network.proxies.proxy_for(origin.host, origin.port, tls=origin.tls)
    return "" if proxy is None else f" (through the proxy {proxy.name})"


def proxy_remedy(error: NoResponseError) -> str:
    """What to do about a proxy that led nowhere; nothing where none is to blame."""
    cause = error.__cause__
    if isinstance(cause, ProxyRefusedError):
        if cause.status == 407:
            return "Put its user and password into ROUTER_PROXY or HTTPS_PROXY: http://user:password@host:port"
        if cause.status in (502, 503, 504):
            return "Check the address, and that the proxy may look up and reach it; NO_PROXY names who needs no proxy"
        return f"Ask who runs the proxy to allow {cause.target}, or name the host in NO_PROXY to go around the proxy"
    if isinstance(cause, ProxyError):
        return "Check ROUTER_PROXY, HTTPS_PROXY or HTTP_PROXY; ROUTER_PROXY=none goes without a proxy"
    return ""

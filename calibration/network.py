"""How a calibration reaches models and MLflow: by the router's proxy and certificates, from the same variables."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

import openai

from router.policy.network import BundleError, Network
from router.policy.proxies import ProxyAddressError

FAULTS = (BundleError, ProxyAddressError)


def network() -> Network:
    """The network that ROUTER_PROXY, ROUTER_CA_BUNDLE and the environment describe.

    Raises:
        ProxyAddressError: ROUTER_PROXY is not the address of a proxy.
    """
    given = os.environ
    return Network.read(given.get("ROUTER_PROXY", ""), given.get("ROUTER_CA_BUNDLE", ""), given)


def prepare() -> None:
    """Make MLflow's client, which reads the environment, go the same way.

    Raises:
        BundleError, ProxyAddressError: what is set is no certificate, or no address of a proxy.
    """
    found = network()
    found.check()
    found.export_to(os.environ)


def openai_client(base_url: str, api_key: str, **options: Any) -> openai.OpenAI:
    """The official client for an upstream, which it reaches this way; `options` are that client's own.

    Raises:
        BundleError, ProxyAddressError: as `client` does.
    """
    return openai.OpenAI(base_url=base_url, api_key=api_key, http_client=client(base_url), **options)


def client(base_url: str) -> openai.DefaultHttpxClient:
    """What `openai.OpenAI` speaks to `base_url` by.

    Raises:
        BundleError, ProxyAddressError: what is set is no certificate, or no address of a proxy.
    """
    return openai.DefaultHttpxClient(**_options(base_url))


def async_client(base_url: str) -> openai.DefaultAsyncHttpxClient:
    """What `openai.AsyncOpenAI` speaks to `base_url` by; raises as `client` does."""
    return openai.DefaultAsyncHttpxClient(**_options(base_url))


def _options(base_url: str) -> dict[str, Any]:
    found, parts = network(), urlsplit(base_url)
    tls = parts.scheme == "https"
    proxy = found.proxies.proxy_for(parts.hostname or "", parts.port or (443 if tls else 80), tls=tls)
    # not by the environment a second time: httpx reads NO_PROXY otherwise, and takes loopback to the proxy
    return {"proxy": proxy.url if proxy else None, "verify": found.ssl_context(), "trust_env": False}

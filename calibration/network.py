"""The network of a calibration: the router's proxy and certificates, from the same environment variables."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

import openai

from router.policy.network import BundleError, Network
from router.policy.proxies import ProxyAddressError

INPUT_ERRORS = (BundleError, ProxyAddressError)


def read_network() -> Network:
    """The network configured by ROUTER_PROXY, ROUTER_CA_BUNDLE and the environment.

    Raises:
        ProxyAddressError: ROUTER_PROXY is not a valid proxy address.
    """
    environment = os.environ
    return Network.read(environment.get("ROUTER_PROXY", ""), environment.get("ROUTER_CA_BUNDLE", ""), environment)


def prepare_environment() -> None:
    """Set the environment variables from which MLflow's client reads its proxy and certificates.

    Raises:
        BundleError, ProxyAddressError: the certificates or the proxy address are not valid.
    """
    network = read_network()
    network.check()
    network.export_to(os.environ)


def openai_client(base_url: str, api_key: str, **options: Any) -> openai.OpenAI:
    """The official OpenAI client for an upstream; `options` are those of `openai.OpenAI`.

    Raises:
        BundleError, ProxyAddressError: the certificates or the proxy address are not valid.
    """
    return openai.OpenAI(base_url=base_url, api_key=api_key, http_client=http_client(base_url), **options)


def http_client(base_url: str) -> openai.DefaultHttpxClient:
    """The HTTP client of `openai.OpenAI` for `base_url`.

    Raises:
        BundleError, ProxyAddressError: the certificates or the proxy address are not valid.
    """
    return openai.DefaultHttpxClient(**_options(base_url))


def async_http_client(base_url: str) -> openai.DefaultAsyncHttpxClient:
    """The HTTP client of `openai.AsyncOpenAI` for `base_url`; raises like `http_client`."""
    return openai.DefaultAsyncHttpxClient(**_options(base_url))


def _options(base_url: str) -> dict[str, Any]:
    network, parts = read_network(), urlsplit(base_url)
    tls = parts.scheme == "https"
    proxy = network.proxies.proxy_for(parts.hostname or "", parts.port or (443 if tls else 80), tls=tls)
    # trust_env is off because httpx reads NO_PROXY differently and would use the proxy for loopback
    return {"proxy": proxy.url if proxy else None, "verify": network.ssl_context(), "trust_env": False}

"""How other machines are reached: through which proxy, and trusting which certificates. Both halves read it once."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path

from router.policy.proxies import Proxies

_SETTING = "ROUTER_CA_BUNDLE"
_BUNDLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
_LOOPBACK = ("localhost", "127.0.0.1", "127.0.0.0/8", "::1")


class BundleError(ValueError):
    """What is to be trusted cannot be read, or is no certificate."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A file of certificates, or a folder of them, that is trusted instead of the system's."""

    path: Path
    source: str  # the variable that names it
    folder: str = ""  # SSL_CERT_DIR, which OpenSSL trusts beside SSL_CERT_FILE


@dataclass(frozen=True, slots=True)
class Network:
    """The proxies, and the certificates that are trusted."""

    proxies: Proxies = field(default_factory=Proxies)
    bundle: Bundle | None = None  # None: the system's

    @classmethod
    def read(cls, proxy: str, ca_bundle: str, environment: Mapping[str, str]) -> Network:
        """Read the settings `ROUTER_PROXY` and `ROUTER_CA_BUNDLE`, which go before the environment; "" is unset.

        Raises:
            ProxyAddressError: the setting is not the address of a proxy.
        """
        return cls(Proxies.read(proxy, environment), _bundle(ca_bundle, environment))

    def tls(self) -> ssl.SSLContext:
        """What TLS to others is made with.

        Raises:
            BundleError: the certificates that are to be trusted cannot be read; one line that names variable and path.
        """
        if self.bundle is None:
            return ssl.create_default_context()
        path, source = self.bundle.path, self.bundle.source
        try:
            if path.is_dir():
                return ssl.create_default_context(capath=str(path))
            context = ssl.create_default_context(cafile=str(path))
        except ssl.SSLError:
            raise BundleError(f"{source}: {path} holds no certificate in PEM form, or one that is damaged") from None
        except (OSError, ValueError) as error:
            raise BundleError(f"{source}: {path}: {getattr(error, 'strerror', None) or error}") from None
        if self.bundle.folder:
            context.load_verify_locations(capath=self.bundle.folder)
        return context

    def check(self) -> None:
        """Read the certificates that are named, so that what is wrong is said at the start.

        Raises:
            BundleError: see `tls`.
        """
        if self.bundle is not None:
            self.tls()

    def prepare(self, environment: MutableMapping[str, str]) -> None:
        """Make clients that read the environment by themselves, as MLflow's does, go the same way."""
        proxies = self.proxies
        exempt = "*" if "*" in proxies.exempt else ",".join(dict.fromkeys((*filter(None, proxies.exempt), *_LOOPBACK)))
        told = {
            "http_proxy": proxies.http[1] if proxies.http else "",
            "https_proxy": proxies.https[1] if proxies.https else "",
            "all_proxy": "",
            "no_proxy": exempt if proxies.http or proxies.https else "",
        }
        for name, value in told.items():
            for variable in (name, name.upper()):
                environment.pop(variable, None)
                if value:
                    environment[variable] = value
        if self.bundle is not None:
            for variable in _BUNDLES:
                if self.bundle.source == _SETTING or not environment.get(variable, "").strip():
                    environment[variable] = str(self.bundle.path)


def _bundle(setting: str, environment: Mapping[str, str]) -> Bundle | None:
    if setting.strip():
        return Bundle(Path(setting.strip()), _SETTING)
    for variable in _BUNDLES:
        if path := environment.get(variable, "").strip():
            return Bundle(Path(path), variable, environment.get("SSL_CERT_DIR", "").strip())
    return None

"""The proxies and trusted certificates for connections to other machines."""

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
    """The trusted certificates cannot be read."""


@dataclass(frozen=True, slots=True)
class CertificateBundle:
    """A file or folder of certificates that is trusted instead of the system's."""

    path: Path
    source: str  # the variable that sets it
    folder: str = ""  # SSL_CERT_DIR, which OpenSSL trusts in addition to SSL_CERT_FILE


@dataclass(frozen=True, slots=True)
class Network:
    """Proxies and trusted certificates."""

    proxies: Proxies = field(default_factory=Proxies)
    bundle: CertificateBundle | None = None  # None means the system's

    @classmethod
    def read(cls, proxy: str, ca_bundle: str, environment: Mapping[str, str]) -> Network:
        """Read the settings `ROUTER_PROXY` and `ROUTER_CA_BUNDLE`, which take precedence over the environment.

        Raises:
            ProxyAddressError: `ROUTER_PROXY` is not the address of a proxy.
        """
        return cls(Proxies.read(proxy, environment), _bundle(ca_bundle, environment))

    def ssl_context(self) -> ssl.SSLContext:
        """The TLS context for connections to other machines.

        Raises:
            BundleError: the certificates cannot be read. The message names variable and path.
        """
        if self.bundle is None:
            return ssl.create_default_context()
        path, source = self.bundle.path, self.bundle.source
        try:
            if path.is_dir():
                return ssl.create_default_context(capath=str(path))
            context = ssl.create_default_context(cafile=str(path))
        except ssl.SSLError:
            raise BundleError(f"{source}: {path} contains no valid certificate in PEM format") from None
        except (OSError, ValueError) as error:
            raise BundleError(f"{source}: {path}: {getattr(error, 'strerror', None) or error}") from None
        if self.bundle.folder:
            context.load_verify_locations(capath=self.bundle.folder)
        return context

    def check(self) -> None:
        """Read the certificates, so that errors appear at the start.

        Raises:
            BundleError: see `ssl_context`.
        """
        if self.bundle is not None:
            self.ssl_context()

    def export_to(self, environment: MutableMapping[str, str]) -> None:
        """Set the environment variables for clients that read them, such as MLflow's."""
        proxies = self.proxies
        exempt = "*" if "*" in proxies.exempt else ",".join(dict.fromkeys((*filter(None, proxies.exempt), *_LOOPBACK)))
        variables = {
            "http_proxy": proxies.http[1] if proxies.http else "",
            "https_proxy": proxies.https[1] if proxies.https else "",
            "all_proxy": "",
            "no_proxy": exempt if proxies.http or proxies.https else "",
        }
        for name, value in variables.items():
            for variable in (name, name.upper()):
                environment.pop(variable, None)
                if value:
                    environment[variable] = value
        if self.bundle is not None:
            for variable in _BUNDLES:
                if self.bundle.source == _SETTING or not environment.get(variable, "").strip():
                    environment[variable] = str(self.bundle.path)


def _bundle(setting: str, environment: Mapping[str, str]) -> CertificateBundle | None:
    if setting.strip():
        return CertificateBundle(Path(setting.strip()), _SETTING)
    for variable in _BUNDLES:
        if path := environment.get(variable, "").strip():
            return CertificateBundle(Path(path), variable, environment.get("SSL_CERT_DIR", "").strip())
    return None

"""Trusted certificates, the network settings of MLflow's client, and addresses of both families."""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest
import requests
from corporate_proxy import CorporateProxy
from cryptography import x509
from fake_openai import FakeOpenAI
from servers import free_port
from synthetic_records import make_record
from test_upstream_tls import LOOPBACK, NAMED, TlsFront, certificate

from router.journal.writer import Journal
from router.policy.network import BundleError, Network
from router.settings import SettingsError, load
from router.upstream.sockets import alternate_families, connect, connect_first
from router.upstream.upstreams import Upstreams

CORPORATE = "http://ada:geheim-123@proxy.corp:3128"


def ask(router):
    return httpx2.post(router.url + "/chat/completions", content=NAMED, timeout=30, trust_env=False)


@pytest.fixture
def authorities(tmp_path):
    """Two authorities with their certificates for loopback, as (chain, authority)."""
    created = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        created.append(certificate(tmp_path / name, LOOPBACK))
    return created


@pytest.fixture
def front(authorities, openai_server):
    server = TlsFront(authorities[0][0], openai_server.port)
    yield server
    server.close()


@pytest.mark.parametrize("variable", ["ROUTER_CA_BUNDLE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_certificates_in_a_file_are_trusted(start_router, front, authorities, monkeypatch, variable):
    monkeypatch.setenv(variable, str(authorities[0][1]))
    assert ask(start_router(openai_base_url=f"https://127.0.0.1:{front.port}/v1")).status_code == 200


def test_the_setting_overrides_the_environment(start_router, front, authorities, monkeypatch):
    (_, first), (_, second) = authorities
    address = {"openai_base_url": f"https://127.0.0.1:{front.port}/v1", "max_attempts": 1}
    monkeypatch.setenv("SSL_CERT_FILE", str(second))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(first))
    assert ask(start_router(**address, ca_bundle=first)).status_code == 200
    assert ask(start_router(**address)).status_code == 502
    monkeypatch.setenv("SSL_CERT_FILE", str(first))
    response = ask(start_router(**address, ca_bundle=second))
    assert "certificate verify failed" in response.json()["error"]["message"]


def test_a_bundle_is_trusted_instead_of_the_systems_certificates(authorities):
    trusted = Network.read("", str(authorities[0][1]), {}).ssl_context().get_ca_certs()
    assert [dict(attribute[0] for attribute in certificate["subject"])["commonName"] for certificate in trusted] == [
        "ours"
    ]


def test_certificates_in_a_folder_and_in_ssl_cert_dir_are_trusted(tmp_path, authorities, start_router, front):
    _, first = authorities[0]
    folder = tmp_path / "hashed"
    folder.mkdir()
    hashed = subprocess.run(["openssl", "x509", "-hash", "-noout", "-in", first], capture_output=True, text=True)
    if hashed.returncode:
        pytest.skip("openssl is not here")
    (folder / f"{hashed.stdout.strip()}.0").write_bytes(first.read_bytes())
    address = {"openai_base_url": f"https://127.0.0.1:{front.port}/v1"}
    assert ask(start_router(**address, ca_bundle=folder)).status_code == 200
    environment = {"SSL_CERT_FILE": requests.certs.where(), "SSL_CERT_DIR": str(folder)}
    context = Network.read("", "", environment).ssl_context()
    with socket.create_connection(("127.0.0.1", front.port)) as opened:
        context.wrap_socket(opened, server_hostname="127.0.0.1").close()


@pytest.mark.parametrize("variable", ["ROUTER_CA_BUNDLE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file or directory"),
        (b"", "contains no valid certificate"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "contains no valid certificate"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "contains no valid certificate"),
        (b"\x30\x82\xff\x00", "contains no valid certificate"),
    ],
    ids=["missing", "empty", "a key", "damaged", "binary"],
)
def test_an_invalid_bundle_is_rejected_with_its_name(tmp_path, monkeypatch, variable, content, message):
    path = tmp_path / "bundle.pem"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv(variable, str(path))
    with pytest.raises(SettingsError, match=rf"setting {variable}: {path}:? {message}"):
        Upstreams(load(openai_base_url="https://api.example.com/v1"))
    with pytest.raises(BundleError):
        load().network.ssl_context()


def test_a_missing_bundle_is_a_one_line_error(tmp_path):
    command = [sys.executable, "-m", "router", "serve", "--port", "0"]
    settings = {"ROUTER_CA_BUNDLE": "/nowhere.pem", "ROUTER_HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
    result = subprocess.run(command, env=settings, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert result.returncode == 2
    assert result.stderr == "router: setting ROUTER_CA_BUNDLE: /nowhere.pem: No such file or directory\n"


@pytest.mark.parametrize(
    ("setting", "environment", "expected"),
    [
        ("", {}, {}),
        ("", {"HTTPS_PROXY": "http://a:1"}, {"https_proxy": "http://a:1"}),
        ("", {"ALL_PROXY": "http://a:1"}, {"https_proxy": "http://a:1", "http_proxy": "http://a:1"}),
        (CORPORATE, {"https_proxy": "http://a:1"}, {"https_proxy": CORPORATE, "http_proxy": CORPORATE}),
        ("none", {"https_proxy": "http://a:1", "NO_PROXY": "x"}, {}),
    ],
)
def test_clients_that_read_the_environment_get_the_same_settings(setting, environment, expected):
    Network.read(setting, "", environment).export_to(environment)
    if expected:
        expected |= {"no_proxy": "localhost,127.0.0.1,127.0.0.0/8,::1"}
    assert environment == expected | {name.upper(): value for name, value in expected.items()}
    before = dict(environment)
    Network.read("", "", environment).export_to(environment)
    assert environment == before, "told twice, nothing changes"


@pytest.mark.parametrize(("exempt", "message"), [("*", "*"), ("a.test, .b.test", "a.test,.b.test,localhost")])
def test_exempt_hosts_stay_exempt_for_clients_that_read_the_environment(exempt, message):
    environment = {"NO_PROXY": exempt, "HTTPS_PROXY": "http://a:1"}
    Network.read("", "", environment).export_to(environment)
    assert environment["no_proxy"].startswith(message) and environment["NO_PROXY"] == environment["no_proxy"]


@pytest.fixture
def mlflow_behind_proxy(tmp_path, openai_server):
    """A server for MLflow's client that only the proxy reaches, and the settings for it."""
    chain, authority = certificate(tmp_path, x509.DNSName("mlflow.test"))
    front = TlsFront(chain, openai_server.port)
    proxy = CorporateProxy({"mlflow.test:443": front.port}, "ada:geheim-123")
    yield proxy, {"ROUTER_PROXY": f"http://ada:geheim-123@{proxy.address}", "ROUTER_CA_BUNDLE": str(authority)}
    proxy.close()
    front.close()


def test_mlflows_requests_use_the_proxy_and_the_bundle(mlflow_behind_proxy, openai_server):
    proxy, settings = mlflow_behind_proxy
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
    Network.read(settings["ROUTER_PROXY"], settings["ROUTER_CA_BUNDLE"], environment).export_to(environment)
    asks = "import requests, sys; print(*(requests.get(url, timeout=10).status_code for url in sys.argv[1:]))"
    command = [sys.executable, "-c", asks, "https://mlflow.test/v1/other", openai_server.url + "/other"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert result.stdout == "200 200\n", result.stderr
    assert [request.target for request in proxy.connects] == ["mlflow.test:443"] and not proxy.forwarded


def test_the_exporter_reaches_mlflow_through_the_proxy(tmp_path, mlflow_behind_proxy, openai_server):
    proxy, settings = mlflow_behind_proxy
    journal = Journal(tmp_path / "home" / "journal")
    assert journal.append(make_record(1))
    journal.close()
    options = {"MLFLOW_TRACKING_URI": "https://mlflow.test", "ROUTER_HOME": str(tmp_path / "home")}
    result = subprocess.run(
        [sys.executable, "-m", "router", "export", "--once"],
        env={"PYTHONPATH": ":".join(sys.path), **options, **settings},
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=120,
    )
    assert {request.target for request in proxy.connects} == {"mlflow.test:443"}
    assert any(request.target.startswith("/api/2.0/mlflow/") for request in openai_server.received)
    assert "geheim" not in result.stdout + result.stderr


def test_an_exporter_without_its_bundle_logs_one_line(tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "router", "export", "--once"],
        env={"PYTHONPATH": ":".join(sys.path), "ROUTER_HOME": str(tmp_path), "ROUTER_CA_BUNDLE": "/nowhere.pem"},
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=120,
    )
    assert result.returncode == 2
    assert result.stderr == "router: setting ROUTER_CA_BUNDLE: /nowhere.pem: No such file or directory\n"


# addresses of both families

V4, V6 = socket.AF_INET, socket.AF_INET6


class OnIPv6(FakeOpenAI):
    """A fake OpenAI server on the IPv6 loopback."""

    host = "::1"

    @property
    def url(self):
        return f"http://[::1]:{self.port}/v1"


@pytest.fixture
def on_ipv6():
    if not socket.has_ipv6:
        pytest.skip("there is no IPv6 here")
    server = OnIPv6()
    yield server
    server.close()


@contextlib.contextmanager
def listening(family=V4, *, full=False):
    """Yield a listening socket's address; with `full` no connection is accepted."""
    with contextlib.ExitStack() as stack:
        host = "127.0.0.1" if family == V4 else "::1"
        server = stack.enter_context(socket.create_server((host, 0), family=family, backlog=0))
        if full:
            stack.enter_context(socket.create_connection(server.getsockname()[:2]))
        yield family, server.getsockname()


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def refusing(family=V4):
    with listening(family) as (_, address):
        return family, address


def test_an_upstream_is_reached_by_its_ipv6_address(start_router, on_ipv6):
    router = start_router(openai_base_url=on_ipv6.url, proxy=CORPORATE)
    assert ask(router).status_code == 200
    assert on_ipv6.received[-1].header("host") == f"[::1]:{on_ipv6.port}"


def test_the_certificate_of_an_upstream_at_an_ipv6_address_is_verified(start_router, openai_server, tmp_path):
    import ipaddress

    class Front(TlsFront):
        host = "::1"

    chain, authority = certificate(tmp_path, x509.IPAddress(ipaddress.ip_address("::1")))
    front = Front(chain, openai_server.port)
    try:
        assert (
            ask(start_router(openai_base_url=f"https://[::1]:{front.port}/v1", ca_bundle=authority)).status_code == 200
        )
    finally:
        front.close()


@pytest.mark.parametrize("first", [V4, V6])
async def test_after_a_refusal_the_next_address_is_tried_at_once(first):
    other = V4 if first == V6 else V6
    start = time.monotonic()
    with listening(other) as (_, address):
        (await connect_first([refusing(first), refusing(first), (other, address)])).close()
    assert time.monotonic() - start < 0.2


async def test_after_a_silent_address_the_next_one_is_tried_soon():
    start = time.monotonic()
    with listening(V6, full=True) as silent, listening() as answering:
        opened = await connect_first([silent, answering])
        assert opened.getpeername() == answering[1]
        opened.close()
    assert 0.2 < time.monotonic() - start < 2


async def test_if_no_address_answers_all_reasons_are_reported():
    with pytest.raises(OSError, match=r"127\.0\.0\.1.*::1"):
        await connect_first([refusing(), refusing(V6)])


async def test_a_cancelled_connect_leaves_no_socket_open():
    with listening(V6, full=True) as certificate, listening(full=True) as other:
        before = descriptors()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await connect_first([certificate, other])
        await asyncio.sleep(0)
        assert descriptors() == before


async def test_a_host_name_is_resolved():
    for name in ("localhost", "127.0.0.1"):
        with listening() as (_, (_, port)):
            (await connect(name, port)).close()


def test_address_families_alternate_starting_with_the_first():
    assert alternate_families([(V6, 1), (V6, 2), (V6, 3), (V4, 4)]) == [(V6, 1), (V4, 4), (V6, 2), (V6, 3)]
    assert alternate_families([(V4, 1), (V4, 2)]) == [(V4, 1), (V4, 2)]


def test_the_router_serves_on_an_ipv6_address_and_checks_the_host(tmp_path, openai_server, create_store):
    create_store(tmp_path)
    port = free_port()
    settings = {
        **{"OPENAI_BASE_URL": openai_server.url, "ROUTER_HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path)},
        "ROUTER_HOSTS": "[fd00::7]",
    }
    command = [sys.executable, "-m", "router", "serve", "--host", "[::1]", "--port", str(port)]
    process = subprocess.Popen(command, env=settings, cwd=tmp_path, stderr=subprocess.DEVNULL)
    try:
        url, deadline = f"http://[::1]:{port}/v1/chat/completions", time.monotonic() + 60
        while True:
            try:
                answer = httpx2.post(url, content=NAMED, timeout=30, trust_env=False)
                break
            except httpx2.TransportError:
                assert time.monotonic() < deadline and process.poll() is None
                time.sleep(0.1)
        assert answer.json()["choices"][0]["message"]["content"] == "Paris."
        hosts = {
            f"[::1]:{port}": 200,
            "[::1]": 200,
            f"[fd00::7]:{port}": 200,
            f"[fd00::8]:{port}": 403,
            "evil.test": 403,
        }
        for named, status in hosts.items():
            assert httpx2.post(url, content=NAMED, headers={"host": named}, timeout=30).status_code == status, named
    finally:
        process.terminate()
        process.wait(30)

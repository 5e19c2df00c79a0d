"""Upstreams behind a corporate proxy, with and without TLS: clients see no change, and errors name the proxy."""

import contextlib
import logging
import subprocess
import sys
import time

import httpx2
import openai
import pytest
from corporate_proxy import CorporateProxy
from cryptography import x509
from fake_openai import Reply, chat_events, stream_reply
from test_leftovers import CHUNKED, EVIL, SIZED, MisbehavingUpstream
from test_upstream_tls import NAMED, TlsFront, certificate
from waiting import until

from router.policy.network import Network
from router.policy.proxies import Proxies
from router.settings import SettingsError, load
from router.upstream.calls import Call, Origin
from router.upstream.pool import Pool
from router.upstream.upstreams import Upstreams

LOGIN, PASSWORD = "ada:geheim-123", "geheim-123"
HTTPS, HTTP = "https://upstream.test/v1", "http://upstream.test/v1"
FAST = {"first_byte": 0.6, "idle": 0.5, "connect": 0.5, "retries": 5}
STREAMED = NAMED[:-1] + b',"stream":true}'


class ProxiedRouter:
    """A router, its proxy, and the TLS server in front of the upstream."""

    def __init__(self, folder, port, serve, login):
        chain, self.authority = certificate(folder, x509.DNSName("upstream.test"))
        self.front = TlsFront(chain, port)
        names = {"upstream.test:443": self.front.port, "upstream.test": port}
        self.proxy = CorporateProxy(names, login)
        self._serve = serve

    def start(self, url, login="", **settings):
        settings = {"proxy": f"http://{login}{'@' * bool(login)}{self.proxy.address}", **settings}
        return self._serve(openai_base_url=url, openai_api_key="sk-upstream", ca_bundle=self.authority, **settings)

    @property
    def requests(self):
        """The requests to the proxy, without the router's own model lists."""
        return self.proxy.connects + [request for request in self.proxy.forwarded if request.method == "POST"]

    def close(self):
        self.proxy.close()
        self.front.close()


@pytest.fixture
def start_behind_proxy(tmp_path, start_router, openai_server):
    started = []

    def make(login=""):
        started.append(ProxiedRouter(tmp_path, openai_server.port, start_router, login))
        return started[-1]

    yield make
    for request in started:
        request.close()


@pytest.fixture(params=[HTTPS, HTTP], ids=["https", "http"])
def url(request):
    return request.param


def ask(router, body=NAMED, path="/chat/completions"):
    return httpx2.post(router.url + path, content=body, timeout=30, trust_env=False)


def refusal(answer):
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["code"]) == (502, "upstream_error", "upstream_unreachable")
    return error["message"]


@pytest.mark.parametrize("login", ["", LOGIN], ids=["open", "with credentials"])
def test_answers_arrive_through_the_proxy_and_connections_are_reused(start_behind_proxy, url, openai_server, login):
    net = start_behind_proxy(login)
    router = net.start(url, login)
    for _ in range(5):
        assert ask(router).json()["choices"][0]["message"]["content"] == "Paris."
    received = openai_server.received[-1]
    assert received.body == NAMED and received.header("host") == "upstream.test"
    assert received.header("authorization") == "Bearer sk-upstream"
    assert received.header("proxy-authorization") is None
    assert {request.target for request in net.requests} == {
        "upstream.test:443" if url == HTTPS else "http://upstream.test/v1/chat/completions"
    }
    if url == HTTPS:
        assert 1 <= len(net.proxy.connects) <= 2 and net.front.connections <= 2  # models are listed beside it
        assert all(request.header("authorization") is None for request in net.proxy.connects)


def test_a_stream_is_forwarded_unchanged_as_it_arrives(start_behind_proxy, url, openai_server):
    router = start_behind_proxy().start(url)
    sent_content = chat_events("gpt-4o")
    openai_server.enqueue(stream_reply(*sent_content, gap=0.05))
    with httpx2.stream("POST", router.url + "/chat/completions", content=STREAMED, timeout=30) as answer:
        pieces = list(answer.iter_raw())
    assert b"".join(pieces) == b"".join(sent_content)
    assert len(pieces) >= len(sent_content) - 1


def test_the_official_client_streams_through_the_proxy(start_behind_proxy, url):
    router = start_behind_proxy(LOGIN).start(url, LOGIN)
    with openai.OpenAI(base_url=router.url, api_key="any") as client:
        stream = client.chat.completions.create(
            model="gpt-4o", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "Paris."


@pytest.mark.parametrize("streamed", [True, False])
def test_a_client_that_disconnects_cancels_the_upstream_request(start_behind_proxy, url, openai_server, streamed):
    router = start_behind_proxy().start(url)
    openai_server.enqueue(stream_reply(*chat_events("gpt-4o"), gap=0.3) if streamed else Reply(wait=20))
    body = STREAMED if streamed else NAMED
    stream_request = httpx2.stream("POST", router.url + "/chat/completions", content=body, timeout=0.7)
    with contextlib.suppress(httpx2.ReadTimeout), stream_request as answer:
        next(answer.iter_raw())
    assert openai_server.received[0].hung_up.wait(5)


def test_large_bodies_are_forwarded(start_behind_proxy, url, openai_server):
    router = start_behind_proxy().start(url)
    large = b'{"model":"gpt-4o","messages":[{"role":"user","content":"' + b"x" * 4_000_000 + b'"}]}'
    for path in ("/chat/completions", "/files"):
        assert ask(router, large, path).status_code == 200
    assert [request.body == large for request in openai_server.received] == [True, True]


@pytest.mark.parametrize("proxy_setting", ["", "ada:wrong-456"], ids=["no credentials", "wrong credentials"])
@pytest.mark.parametrize("path", ["/chat/completions", "/files"])
def test_a_proxy_that_asks_for_credentials_is_named_without_them(
    start_behind_proxy, url, openai_server, caplog, capfd, proxy_setting, path
):
    net = start_behind_proxy(LOGIN)
    with caplog.at_level(logging.DEBUG):
        router = net.start(url, proxy_setting, record_content="whole")
        answer = ask(router, path=path)
        message = refusal(answer)
        record = router.records()
    assert f"the proxy {net.proxy.address} {'refuses its' if proxy_setting else 'asks for'} credentials" in message
    assert "(407)" in message and not openai_server.received
    settings = router.app.worker.settings
    upstreams = router.app.worker.upstreams
    texts = [caplog.text, *capfd.readouterr(), str(record), repr(settings), repr(upstreams.network), answer.text]
    texts += [str(answer.headers)]
    for secret in ("wrong-456", "YWRh"):
        assert not [request for request in texts if secret in request]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("403", "does not allow upstream.test:443 (403)"),
        ("502", "cannot reach upstream.test:443 (502)"),
        ("504", "cannot reach upstream.test:443 (504)"),
        ("500", "refuses to connect to upstream.test:443 (500)"),
        ("301", "refuses to connect to upstream.test:443 (301)"),
        ("cut", "closed the connection after CONNECT"),
        (b"SSH-2.0-OpenSSH_9\r\n\r\n", "does not respond to CONNECT in HTTP/1.1"),
        (b"HTTP/1.1 20x OK\r\n\r\n", "does not respond to CONNECT in HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 20_000, "headers that are too long"),
        (b"HTTP/1.1 200 OK\r\n\r\n\x16\x03\x01", "sent data after its response to CONNECT"),
        ("stall", "no connection within 0.5 s (through the proxy "),
        ("silent", "no connection within 0.5 s (through the proxy "),
        (b"HTTP/1.1 200 OK\r\n", "no connection within 0.5 s (through the proxy "),
    ],
)
def test_a_failed_connect_returns_502_with_the_reason(start_behind_proxy, openai_server, fault, expected):
    net = start_behind_proxy(LOGIN)
    net.proxy.fault = fault
    router = net.start(HTTPS, LOGIN, timeouts=FAST, max_attempts=1)
    start = time.monotonic()
    message = refusal(ask(router))
    assert expected in message and net.proxy.address in message and PASSWORD not in message
    assert time.monotonic() - start < 3
    assert not openai_server.received
    net.proxy.fault = None
    assert ask(router).status_code == 200, "what failed leaves nothing behind"


@pytest.mark.parametrize("fault", ["403", "silent"])
def test_a_failed_tunnel_is_closed(start_behind_proxy, fault):
    net = start_behind_proxy()
    net.proxy.fault = fault
    router = net.start(HTTPS, timeouts=FAST, max_attempts=1)
    for _ in range(5):
        ask(router)
    assert until(lambda: not net.proxy.open_connections)


def test_a_client_that_disconnects_while_the_proxy_stalls_closes_the_connection(start_behind_proxy):
    net = start_behind_proxy()
    net.proxy.fault = "stall"
    router = net.start(HTTPS)
    with pytest.raises(httpx2.ReadTimeout):
        httpx2.post(router.url + "/chat/completions", content=NAMED, timeout=0.5)
    request_count = len(net.proxy.connects)
    deadline = time.monotonic() + 2  # a connection attempt times out after 5 s
    while net.proxy.open_connections > 1 and time.monotonic() < deadline:  # one may be the router's list of models
        time.sleep(0.02)
    assert request_count and net.proxy.open_connections <= 1


def test_an_unreachable_proxy_is_named(start_router):
    router = start_router(openai_base_url=HTTPS, proxy=f"http://{LOGIN}@127.0.0.1:9", max_attempts=1)
    message = refusal(ask(router))
    assert "the proxy 127.0.0.1:9 cannot be reached" in message and PASSWORD not in message


def test_a_certificate_is_checked_through_the_tunnel(start_behind_proxy, openai_server, tmp_path):
    net = start_behind_proxy()
    net.proxy._names["other.test:443"] = net.front.port
    message = refusal(ask(net.start("https://other.test/v1", max_attempts=1)))
    assert "certificate verify failed" in message and f"through the proxy {net.proxy.address}" in message
    assert not openai_server.received


def test_a_stall_after_the_tunnel_is_attributed_to_the_upstream(start_behind_proxy, openai_server):
    router = start_behind_proxy().start(HTTPS, timeouts=FAST, max_attempts=1)
    openai_server.enqueue(Reply(wait=5))
    answer = ask(router)
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "upstream_timeout")


def test_an_idle_tunnel_that_was_closed_is_opened_again(start_behind_proxy, url, openai_server):
    net = start_behind_proxy()
    router = net.start(url)
    assert ask(router).status_code == 200
    for transport in list(net.proxy._open):
        net.proxy._loop.call_soon_threadsafe(transport.abort)
    assert ask(router).status_code == 200
    assert len(openai_server.received) == 2 and router.records(2)[1]["attempts"] == 1


@pytest.mark.parametrize("answer", [SIZED, CHUNKED])
async def test_extra_data_from_a_proxy_is_discarded(answer):
    proxy = MisbehavingUpstream(answer, EVIL, 0.0)
    pool = Pool(1.0, Network(Proxies.read(f"http://127.0.0.1:{proxy.port}", {})))
    try:
        for number in range(4):
            path = b"/mine-%d" % number
            heard = await pool.send(Origin("upstream.test", 80, False, b"/v1"), Call(b"GET", path, []), 1)
            pieces = []
            while piece := await heard.read(1):
                pieces.append(piece)
            heard.close()
            assert b"".join(pieces) == path[1:] and "evil" not in str(heard.headers)
    finally:
        pool.close()
        proxy.close()


async def test_extra_data_in_a_tunnel_is_discarded(tmp_path):
    chain, authority = certificate(tmp_path, x509.DNSName("upstream.test"))
    wrong_upstream = MisbehavingUpstream(SIZED, EVIL, 0.0)
    front = TlsFront(chain, wrong_upstream.port)
    proxy = CorporateProxy({"upstream.test:443": front.port})
    pool = Pool(2.0, Network.read(f"http://{proxy.address}", str(authority), {}))
    try:
        for number in range(4):
            path = b"/mine-%d" % number
            answer = await pool.send(Origin("upstream.test", 443, True, b"/v1"), Call(b"GET", path, []), 2)
            assert await answer.read(1) == path[1:] and await answer.read(1) == b""
            answer.close()
    finally:
        pool.close()
        for server in (proxy, front, wrong_upstream):
            server.close()


def test_proxy_credentials_of_a_client_are_not_forwarded(start_behind_proxy, url, openai_server):
    net = start_behind_proxy()
    answer = httpx2.post(
        net.start(url).url + "/chat/completions",
        content=NAMED,
        headers={"proxy-authorization": "Basic clients-own", "proxy-connection": "keep-alive"},
        timeout=30,
    )
    assert answer.status_code == 200
    for received in (*net.requests, *openai_server.received):
        assert received.header("proxy-authorization") is received.header("proxy-connection") is None


@pytest.mark.parametrize("exempt", ["upstream.test", ".test", "*", "upstream.test:443,upstream.test:80"])
def test_exempt_hosts_are_not_reached_through_the_proxy(start_behind_proxy, url, monkeypatch, exempt):
    monkeypatch.setenv("NO_PROXY", exempt)
    net = start_behind_proxy()
    assert "through the proxy" not in refusal(ask(net.start(url, max_attempts=1)))  # there is no upstream.test
    assert not net.proxy.connects and not net.proxy.forwarded


def test_loopback_is_not_reached_through_the_proxy(start_behind_proxy, openai_server):
    net = start_behind_proxy()
    assert ask(net.start(openai_server.url)).status_code == 200
    assert not net.proxy.connects and not net.proxy.forwarded


def test_the_setting_none_overrides_the_proxy_of_the_environment(start_behind_proxy, url, monkeypatch):
    net = start_behind_proxy()
    monkeypatch.setenv("https_proxy", f"http://{net.proxy.address}")
    monkeypatch.setenv("ALL_PROXY", f"http://{net.proxy.address}")
    assert ask(net.start(url, proxy=None)).status_code == 200
    request_count = len(net.proxy.connects) + len(net.proxy.forwarded)
    assert request_count > 0
    refusal(ask(net.start(url, proxy="none", max_attempts=1)))
    assert len(net.proxy.connects) + len(net.proxy.forwarded) == request_count


@pytest.mark.parametrize(
    "environment",
    [
        {"ROUTER_PROXY": "socks5://ada:geheim-123@proxy.corp:1080"},
        {"HTTPS_PROXY": "https://ada:geheim-123@proxy.corp:3128"},
        {"HTTPS_PROXY": "http://ada:geheim-123@proxy corp"},
    ],
)
def test_an_invalid_proxy_is_a_one_line_error_without_its_password(tmp_path, environment):
    command = [sys.executable, "-m", "router", "serve", "--port", "0"]
    settings = {"OPENAI_BASE_URL": HTTPS, "ROUTER_HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path), **environment}
    result = subprocess.run(command, env=settings, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    (line,) = result.stderr.splitlines()
    assert result.returncode == 2 and line.startswith(f"router: setting {next(iter(environment))}")
    assert PASSWORD not in line


def test_the_settings_show_no_password(monkeypatch):
    monkeypatch.setenv("ROUTER_PROXY", f"http://{LOGIN}@proxy.corp:3128")
    settings = load(openai_base_url=HTTPS)
    for text in (repr(settings), str(settings), repr(settings.network), repr(Upstreams(settings).network)):
        assert PASSWORD not in text
    monkeypatch.setenv("ROUTER_PROXY", f"ftp://{LOGIN}@proxy.corp:3128")
    with pytest.raises(SettingsError) as error:
        load()
    assert PASSWORD not in str(error.value)

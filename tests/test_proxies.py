"""The proxy for an address: environment, setting, and exempt hosts."""

import base64

import pytest

from router.policy.proxies import Proxies, Proxy, ProxyAddressError

CORPORATE = "http://proxy.corp:3128"


def leads(host, port=443, tls=True, setting="", **environment):
    proxy = Proxies.read(setting, environment).proxy_for(host, port, tls=tls)
    return proxy.name if proxy else None


@pytest.mark.parametrize(
    ("exempt", "host", "port", "expected"),
    [
        ("", "api.example.com", 443, True),
        ("*", "api.example.com", 443, False),
        ("example.com", "example.com", 443, False),
        ("example.com", "api.example.com", 443, False),
        ("example.com", "badexample.com", 443, True),
        ("example.com", "example.com.evil.test", 443, True),
        (".example.com", "api.example.com", 443, False),
        (".example.com", "example.com", 443, False),
        ("*.example.com", "api.example.com", 443, False),
        ("*.example.com", "badexample.com", 443, True),
        ("EXAMPLE.com", "Api.Example.COM.", 443, False),
        ("other.test, example.com", "example.com", 443, False),
        ("other.test example.com", "example.com", 443, False),
        ("example.com:443", "example.com", 443, False),
        ("example.com:8443", "example.com", 443, True),
        (".example.com:8443", "api.example.com", 8443, False),
        ("10.1.2.3", "10.1.2.3", 443, False),
        ("10.1.2.3:80", "10.1.2.3", 443, True),
        ("3", "10.1.2.3", 443, True),
        ("2.3", "10.1.2.3", 443, True),
        ("10.0.0.0/8", "10.1.2.3", 443, False),
        ("10.1.2.3/8", "10.9.9.9", 443, False),
        ("10.0.0.0/8", "11.1.2.3", 443, True),
        ("10.0.0.0/8", "ten.example.com", 443, True),
        ("10.0.0.0/99,x/y", "10.1.2.3", 443, True),
        ("fd00::/8", "fd00::1", 443, False),
        ("fd00::/8", "10.1.2.3", 443, True),
        ("10.0.0.0/8", "::ffff:10.1.2.3", 443, False),
        ("2001:db8::1", "2001:db8::1", 443, False),
        ("[2001:db8::1]", "2001:db8:0::1", 443, False),
        ("[2001:db8::1]:443", "2001:db8::1", 443, False),
        ("[2001:db8::1]:80", "2001:db8::1", 443, True),
        (",, ,", "example.com", 443, True),
        ("*.", "example.com", 443, True),
    ],
)
def test_hosts_in_no_proxy_are_reached_directly(exempt, host, port, expected):
    assert leads(host, port, https_proxy=CORPORATE, NO_PROXY=exempt) == ("proxy.corp:3128" if expected else None)


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST", "a.localhost", "127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "0.0.0.0"]
)
@pytest.mark.parametrize("tls", [True, False])
def test_this_machine_is_never_reached_through_a_proxy(host, tls):
    assert leads(host, tls=tls, setting=CORPORATE, NO_PROXY="other.test") is None
    assert leads(host, tls=tls, ALL_PROXY=CORPORATE) is None


@pytest.mark.parametrize(
    ("environment", "http", "https"),
    [
        ({}, None, None),
        ({"HTTPS_PROXY": "http://a:1"}, None, "a:1"),
        ({"HTTP_PROXY": "http://a:1"}, "a:1", None),
        ({"ALL_PROXY": "http://a:1"}, "a:1", "a:1"),
        ({"all_proxy": "http://a:1", "https_proxy": "http://b:2"}, "a:1", "b:2"),
        ({"HTTPS_PROXY": "http://a:1", "https_proxy": "http://b:2"}, None, "b:2"),
        ({"HTTPS_PROXY": "http://a:1", "https_proxy": " "}, None, "a:1"),
        ({"HTTPS_PROXY": "a.corp:8080"}, None, "a.corp:8080"),
        ({"HTTPS_PROXY": "http://[2001:db8::1]"}, None, "[2001:db8::1]:80"),
        ({"HTTPS_PROXY": "http://a:1", "no_proxy": "api.example.com", "NO_PROXY": "x"}, None, None),
    ],
)
def test_proxy_variables_are_read_as_by_other_programs(environment, http, https):
    assert leads("api.example.com", 80, tls=False, **environment) == http
    assert leads("api.example.com", **environment) == https


def test_the_setting_overrides_the_environment_and_none_disables_proxies():
    environment = {"HTTPS_PROXY": "http://a:1", "http_proxy": "http://a:1", "NO_PROXY": "exempt.test"}
    assert leads("api.example.com", setting=CORPORATE, **environment) == "proxy.corp:3128"
    assert leads("api.example.com", 80, tls=False, setting=CORPORATE, **environment) == "proxy.corp:3128"
    assert leads("exempt.test", setting=CORPORATE, **environment) is None
    assert leads("api.example.com", setting="None", **environment) is None


def test_credentials_are_decoded_for_the_header_and_absent_from_reprs():
    proxy = Proxy.parse("http://ada:p%40ss%3Aw%C3%B6rd@proxy.corp:3128", "HTTPS_PROXY")
    assert proxy.authorization == b"Basic " + base64.b64encode("ada:p@ss:wörd".encode())
    assert proxy.url == "http://ada:p%40ss%3Aw%C3%B6rd@proxy.corp:3128"
    proxies = Proxies.read("", {"HTTPS_PROXY": proxy.url})
    for text in (repr(proxy), repr(proxies), proxy.name):
        assert "ada" not in text and "p%40ss" not in text and "YWRh" not in text


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http://user:geheim",
        "http://user:geheim@",
        "http://user:geheim@proxy.corp:port",
        "http://user:geheim@proxy corp:1",
        "http://user:geheim@proxy.corp:99999",
        "http://[user:geheim",
        "https://user:geheim@proxy.corp:3128",
        "socks5://user:geheim@proxy.corp:1080",
    ],
)
def test_an_invalid_proxy_address_is_refused_without_showing_it(url):
    with pytest.raises(ProxyAddressError, match="HTTPS_PROXY") as error:
        leads("api.example.com", HTTPS_PROXY=url)
    assert "geheim" not in str(error.value)
    assert leads("127.0.0.1", HTTPS_PROXY=url) is None, "what needs no proxy needs no address of one"
    with pytest.raises(ProxyAddressError, match="ROUTER_PROXY"):
        Proxies.read(url, {})

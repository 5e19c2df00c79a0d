"""Web pages of other sites are rejected; programs and the dashboard are not."""

import json

import httpx2
import pytest
from command_line import run
from test_app import SUM

from router.settings import SettingsError, is_loopback, load

BODY = json.dumps({"model": "auto", "messages": SUM}).encode()
EVIL = {"origin": "http://evil.example"}
APP = "https://app.example"


def send_request(router, path="/v1/chat/completions", method="POST", **headers):
    http_headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx2.request(
        method, router.origin + path, content=BODY if method == "POST" else None, headers=http_headers
    )


@pytest.mark.parametrize(
    "headers",
    [
        EVIL,
        {"origin": "null"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"},
        {"host": "evil.example"},
        {"host": "127.evil.example:8000"},
        {"host": "localhost.evil.example"},
        {"host": "evil.example", "origin": "http://evil.example", "sec_fetch_site": "same-origin"},
    ],
    ids=str,
)
def test_a_page_of_another_site_cannot_post(router, openai_server, headers):
    for kind in ("text/plain", "application/json"):
        answer = send_request(router, content_type=kind, **headers)
        assert answer.status_code == 403 and answer.json()["error"]["code"] == "foreign_page"
        assert not any(name.startswith("access-control-") for name in answer.headers)
    assert openai_server.received == []


@pytest.mark.parametrize("path", ["/v1/files", "/v1/models", "/router/recent", "/router/usage", "/metrics", "/"])
def test_a_page_of_another_site_cannot_read(router, openai_server, path):
    for headers in (EVIL, {"host": "evil.example"}, {"sec_fetch_site": "cross-site", "sec_fetch_mode": "no-cors"}):
        assert send_request(router, path, "GET", **headers).status_code == 403
    assert openai_server.received == []


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "127.8.8.8:1", "[::1]:8000", "LOCALHOST", "box.lan"])
def test_local_host_names_are_accepted(start_router, openai_server, host):
    router = start_router(openai_base_url=openai_server.url, openai_api_key="sk-upstream", hosts=["box.lan"])
    assert send_request(router, host=host).status_code == 200
    assert send_request(router, host=host, origin=f"http://{host}", sec_fetch_site="same-origin").status_code == 200


def test_a_link_to_the_dashboard_is_accepted(router):
    following = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}
    assert send_request(router, "/", "GET", **following).status_code == 200


def test_with_keys_every_host_name_is_accepted_and_foreign_pages_are_not(start_router, openai_server):
    router = start_router(openai_base_url=openai_server.url, api_keys=["rk-of-the-tests-1"])
    key = {"authorization": "Bearer rk-of-the-tests-1"}
    assert send_request(router, host="router.example", **key).status_code == 200
    assert send_request(router, **key, **EVIL).status_code == 403


def test_only_allowed_sites_can_send_requests_and_read_responses(start_router, openai_server):
    router = start_router(openai_base_url=openai_server.url, openai_api_key="sk-upstream", cors_origins=[APP])
    preflight_headers = {
        "access_control_request_method": "POST",
        "access_control_request_headers": "authorization,content-type",
    }
    before = send_request(router, method="OPTIONS", origin=APP, **preflight_headers)
    assert before.status_code == 204 and before.headers["access-control-allow-origin"] == APP
    assert before.headers["access-control-allow-headers"] == "authorization,content-type"
    assert "POST" in before.headers["access-control-allow-methods"]
    for path, method in (("/v1/chat/completions", "POST"), ("/v1/files", "GET"), ("/router/policy", "GET")):
        answer = send_request(router, path, method, origin=APP, sec_fetch_site="cross-site")
        assert answer.headers["access-control-allow-origin"] == APP and answer.headers["vary"] == "Origin"
    assert send_request(router, method="OPTIONS", **EVIL, **preflight_headers).status_code == 403
    assert "access-control-allow-origin" not in send_request(router).headers


def test_a_preflight_request_is_answered_by_the_router(router, openai_server):
    assert send_request(router, "/v1/files", "OPTIONS").status_code == 204
    assert openai_server.received == []


@pytest.mark.parametrize("method", ["TRACE", "PURGE", "PROPFIND"])
def test_trace_requests_are_rejected(router, openai_server, method):
    answer = send_request(router, "/v1/files", method)
    assert answer.status_code == 405 and "POST" in answer.headers["allow"]
    assert openai_server.received == []


def test_only_addresses_of_this_machine_are_loopback():
    assert [host for host in ("127.0.0.1", "::1", "localhost", "127.9.9.9") if not is_loopback(host)] == []
    assert [host for host in ("127.evil.example", "0.0.0.0", "", "10.0.0.1") if is_loopback(host)] == []


def test_serving_a_network_requires_a_key():
    result = run("router", "ui", "--host", "0.0.0.0")
    assert result.returncode == 2 and "--everybody" in result.stderr and result.stderr.count("\n") == 1


@pytest.mark.parametrize("keys", [[""], ["  "], "", " , "])
def test_a_blank_key_is_ignored(keys):
    assert load(api_keys=keys).api_keys == ()


@pytest.mark.parametrize("keys", [["short"], "rk-of-the-tests-1,short"])
def test_a_short_key_is_rejected_and_not_printed(keys):
    with pytest.raises(SettingsError, match=r"ROUTER_API_KEYS.*16 characters") as error:
        load(api_keys=keys)
    assert "short" not in str(error.value)

"""The OpenAPI document is served, lists every route, and describes the router's actual answers."""

import re
import subprocess
import sys
from pathlib import Path

import httpx2
import jsonschema
import pytest
from fake_openai import completion, json_reply
from fastapi.routing import APIRoute
from test_keys import UPSTREAM, ask, create_key

from router.errors import RouterError
from router.policy.distribution import version

PAGE_FILES = re.compile(r"/.*\.(js|css)$")  # parts of the page
CHAT = {"model": "auto", "messages": [{"role": "user", "content": "What is 2 + 2?"}]}
ROOT = Path(__file__).parent.parent


@pytest.fixture
def router_with_key(start_router, openai_server, tmp_path):
    """A router with an admin key; returns both."""
    key = create_key(tmp_path / "home-0", "owner", admin=True)
    openai_server.enqueue(json_reply(completion("gpt-4o-mini")))
    return start_router(openai_base_url=openai_server.url, **UPSTREAM), key


@pytest.fixture
def document(router_with_key):
    answer = httpx2.get(router_with_key[0].origin + "/openapi.json")  # without a key
    assert answer.status_code == 200
    return answer.json()


def answer_schema(document, path, method="get", status=200):
    """The schema of an answer with all its references."""
    content = document["paths"][path][method]["responses"][str(status)]["content"]
    return {**content["application/json"]["schema"], "components": document["components"]}


def test_the_document_is_valid_and_its_references_resolve(document):
    assert (document["openapi"], document["info"]["version"]) == ("3.1.0", version())
    text = str(document)
    for section, name in set(re.findall(r"#/components/(\w+)/([\w-]+)", text)):
        assert name in document["components"][section], name
    for name, schema in document["components"]["schemas"].items():
        jsonschema.Draft202012Validator.check_schema(schema), name
    for path, item in document["paths"].items():
        path_parameters = {parameter["name"] for parameter in item.get("parameters", ()) if parameter["in"] == "path"}
        assert path_parameters == set(re.findall(r"{(\w+)}", path)), path
        for method in set(item) - {"parameters"}:
            assert item[method]["summary"] and item[method]["responses"], (path, method)


def test_the_document_lists_exactly_the_routes(router_with_key, document):
    app = router_with_key[0].app
    routes = {
        (route.path, m.lower()) for route in app.fastapi.routes if isinstance(route, APIRoute) for m in route.methods
    }
    routes = {route for route in routes if not PAGE_FILES.match(route[0])}
    routes |= {(path, "post") for path in app.worker.routed}
    described = {(path, method) for path, item in document["paths"].items() for method in set(item) - {"parameters"}}
    passed = {each for each in described if each[0] in ("/v1/{path}", "/v1/embeddings")}
    assert described - passed == routes


@pytest.mark.parametrize(
    "path",
    [
        "/health",
        "/ready",
        "/router/policy",
        "/router/recent",
        "/router/usage",
        "/router/keys",
        "/router/teams",
        "/v1/models",
    ],
)
def test_answers_match_the_document(router_with_key, document, openai_server, path):
    router, key = router_with_key
    if path == "/v1/models":
        openai_server.enqueue(json_reply({"object": "list", "data": [{"id": "gpt-4o", "object": "model"}]}))
    answer = ask(router, path, key)
    assert answer.status_code == 200, answer.text
    jsonschema.validate(answer.json(), answer_schema(document, path))


def test_a_decision_and_a_new_key_match_the_document(router_with_key, document):
    router, key = router_with_key
    jsonschema.validate(
        ask(router, "/router/decision", key, CHAT).json(), answer_schema(document, "/router/decision", "post")
    )
    response = ask(router, "/router/keys", key, {"name": "ada", "usd_a_day": 5})
    jsonschema.validate(response.json(), answer_schema(document, "/router/keys", "post", 201))
    jsonschema.validate(ask(router, "/router/keys/ada", key).json(), answer_schema(document, "/router/keys/{name}"))
    team = ask(router, "/router/teams", key, {"name": "research", "usd_a_month": 200})
    jsonschema.validate(team.json(), answer_schema(document, "/router/teams", "post", 201))
    answer = ask(router, "/router/keys", key, {"name": "ada"})
    described = document["paths"]["/router/keys"]["post"]["responses"][str(answer.status_code)]
    assert described == {"$ref": "#/components/responses/409"}
    error = document["components"]["schemas"]["Error"]
    jsonschema.validate(answer.json(), error)


def test_routing_headers_of_an_answer_are_in_the_document(router_with_key, document):
    router, key = router_with_key
    answer = ask(router, "/v1/chat/completions", key, CHAT)
    header_names = {name for name in answer.headers if name.startswith("x-router-")}
    described = document["paths"]["/v1/chat/completions"]["post"]["responses"]["200"]["headers"]
    assert header_names and header_names <= set(described)


def test_every_status_of_the_routers_own_errors_is_described(document):
    statuses = {error.status for error in RouterError.__subclasses__()}
    elsewhere = {405, 408}  # statuses of connection and method, equal on every path; 500 is a bug
    assert {str(status) for status in statuses - elsewhere - {500}} <= set(document["components"]["responses"])


def test_a_starting_worker_does_not_load_the_document():
    code = "import sys, router.app; sys.exit('router.endpoints.openapi_document' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60).returncode == 0

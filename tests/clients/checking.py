"""What every script of this folder shares: where to ask, and how to tell what came of it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import traceback
import urllib.request
from collections.abc import Callable, Coroutine
from typing import Any

BASE_URL = os.environ["OPENAI_BASE_URL"]
MODEL = os.environ["CLIENT_MODEL"]  # `auto` through the router, a model's name where the upstream is asked directly
ANSWER = "The capital is Paris."
QUESTION = "What is the capital of France?"
runner = asyncio.Runner()  # one loop for all, as the connections of a client belong to one


def check(claim: str, test: Callable[[], Any | Coroutine[Any, Any, Any]]) -> None:
    """Run a test; print whether its claim holds."""
    try:
        result = test()
        if asyncio.iscoroutine(result):
            runner.run(result)
        sys.stdout.write(f"ok {claim}\n")
    except Exception as problem:
        sys.stdout.write(f"FAIL {claim}: {type(problem).__name__}: {str(problem)[:300]!r}\n")
        traceback.print_exc()


def check_routed(claim: str, test: Callable[[], Any | Coroutine[Any, Any, Any]]) -> None:
    """Run a test; through the router, check as well that each of its requests has a reason, and print these."""
    before = {request["span_id"] for request in recent()}
    check(claim, test)
    made = [request for request in reversed(recent()) if request["span_id"] not in before]
    for number, request in enumerate(made, 1):
        sys.stdout.write(f"why {claim}, request {number}: {describe_decision(request)}\n")
    check(f"{claim} is told why", lambda: assert_reasons(made))


def recent() -> list[dict[str, Any]]:
    """The last requests that the router answered, the newest first; none where there is no router."""
    if MODEL != "auto":
        return []
    with urllib.request.urlopen(BASE_URL.removesuffix("/v1") + "/router/recent", timeout=30) as answer:
        requests: list[dict[str, Any]] = json.load(answer)["requests"]
    return requests


def assert_reasons(made: list[dict[str, Any]]) -> None:
    """Assert that requests came, and that each of them was decided on, where there is a router."""
    assert MODEL != "auto" or made, "no request came"
    for request in made:
        assert request["reason"] and request["question_type"] and request["read_as"], request


def describe_decision(request: dict[str, Any]) -> str:
    """Why a request went where it went, in a line."""
    read_as = ", ".join(f"{name} {value}" for name, value in request["read_as"].items())
    return f"{request['model']} because {request['reason']}, as {request['question_type']} ({read_as})"

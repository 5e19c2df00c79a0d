"""What every script of this folder shares: where to ask, and how to tell what came of it."""

from __future__ import annotations

import asyncio
import os
import sys
import traceback
from collections.abc import Callable, Coroutine
from typing import Any

BASE_URL = os.environ["OPENAI_BASE_URL"]
MODEL = os.environ["CLIENT_MODEL"]  # `auto` through the router, a model's name where the upstream is asked directly
SAID = "The capital is Paris."
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

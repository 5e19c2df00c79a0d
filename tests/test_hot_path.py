"""A routed request stays cheap: the test counts function calls, which do not depend on the machine's load."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))
import hot_path

from router.policy.prediction import IS_COMPILED

MOST_CALLS = 525 if IS_COMPILED else 605  # a prompt of 45 words


async def test_the_counted_path_answers_a_request(tmp_path):
    app = hot_path.application(tmp_path)
    start, body = await hot_path.ask(app, next(hot_path.bodies(1)))
    assert start["status"] == 200 and body["body"] == hot_path.ANSWER
    app.worker.close()


def test_the_function_calls_of_a_request_stay_within_the_limit(tmp_path):
    app = hot_path.application(tmp_path)
    calls = hot_path.calls_per_request(app, 100)
    app.worker.close()
    assert calls <= MOST_CALLS

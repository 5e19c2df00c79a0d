"""A routed request stays cheap: function calls are counted, which no busy machine changes."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))
import hot_path

MOST_CALLS = 605  # a prompt of 45 words


async def test_a_request_is_answered_through_the_path_that_is_counted(tmp_path):
    app = hot_path.application(tmp_path)
    start, body = await hot_path.ask(app, next(hot_path.bodies(1)))
    assert start["status"] == 200 and body["body"] == hot_path.ANSWER
    app.worker.close()


def test_a_request_costs_no_more_function_calls_than_it_did(tmp_path):
    app = hot_path.application(tmp_path)
    calls = hot_path.calls_per_request(app, 100)
    app.worker.close()
    assert calls <= MOST_CALLS

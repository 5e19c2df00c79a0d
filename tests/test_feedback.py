import json
import sqlite3
import urllib.error
import urllib.request
from contextlib import closing

import pytest
from fake_openai import json_reply

from router.exporter.feedback import FeedbackError, read_feedback
from router.exporter.shipping import drain, shippers_for
from router.settings import load

TRACE = "0af7651916cd43dd8448eb211c80319c"


def call(router, path: str, body: dict | None = None, key: str = "") -> tuple[int, bytes]:
    request = urllib.request.Request(router.origin + path, None if body is None else json.dumps(body).encode())
    if key:
        request.add_header("authorization", f"Bearer {key}")
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def ask(router, user: str = "ada") -> str:
    body = {"model": "auto", "messages": [{"role": "user", "content": "2+2?"}], "user": user}
    request = urllib.request.Request(router.url + "/chat/completions", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=10) as response:
        response.read()
        return response.headers["x-router-trace-id"]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"{", "malformed|truncated|end"),
        (b'{"trace_id":"x","score":1}', "trace_id"),
        (b'{"trace_id":"%s","score":2}' % TRACE.encode(), "score"),
        (b'{"trace_id":"%s"}' % TRACE.encode(), "give either"),
        (b'{"trace_id":"%s","score":1,"thumbs":"up"}' % TRACE.encode(), "give either"),
        (b'{"trace_id":"%s","thumbs":"sideways"}' % TRACE.encode(), "thumbs"),
        (b'{"trace_id":"%s","score":1,"stars":5}' % TRACE.encode(), "stars"),
    ],
)
def test_invalid_feedback_is_rejected_with_a_reason(body, problem):
    with pytest.raises(FeedbackError, match=problem):
        read_feedback(body)


def test_feedback_accepts_the_trace_id_of_the_header_or_of_mlflow():
    assert read_feedback(b'{"trace_id":"tr-%s","thumbs":"up"}' % TRACE.encode()).trace_id == TRACE
    assert read_feedback(b'{"trace_id":"%s","thumbs":"down"}' % TRACE.encode()).score == 0.0


def test_feedback_given_before_mlflow_has_the_trace_becomes_one_assessment(router, create_store, tmp_path):
    trace = ask(router)
    status, _ = call(
        router, "/router/feedback", {"trace_id": trace, "thumbs": "up", "comment": "use sk-1234567890abcdefgh"}
    )
    assert status == 202
    status, _ = call(router, "/router/feedback", {"trace_id": "tr-" + trace, "score": 0.25})
    assert status == 202
    call(router, "/router/feedback", {"trace_id": "f" * 32, "score": 0.5})  # of a trace that does not exist
    settings = load(home=router.home, mlflow_tracking_uri=create_store(tmp_path / "store"))
    drain(shippers_for(settings)[0])
    for cursor in (router.home / "journal").glob("*.cursor"):  # as after a crash
        cursor.unlink()
    with closing(sqlite3.connect(router.home / "usage.db")) as db:
        db.execute("update router_feedback set state = 'pending'")
        db.commit()
    drain(shippers_for(settings)[0])
    from mlflow import MlflowClient

    info = MlflowClient(settings.tracking_uri).get_trace("tr-" + trace).info
    feedback_values = sorted(
        (str(assessment.feedback.value), assessment.rationale, assessment.name) for assessment in info.assessments
    )
    assert feedback_values == [("0.25", None, "user_feedback"), ("True", "use [key]", "user_feedback")]
    with closing(sqlite3.connect(router.home / "usage.db")) as db:
        states = db.execute("select state, count(*) from router_feedback group by state order by 1").fetchall()
    assert states == [("assessed", 2), ("pending", 1)]


def test_no_key_is_written_to_a_file(start_router, openai_server):
    router_key, client_key = "sk-proj-ours-1234567890abcdef", "sk-proj-theirs-1234567890abcdef"
    router = start_router(openai_base_url=openai_server.url, openai_api_key=router_key, api_keys=client_key)
    refusal = {"error": {"message": f"Incorrect API key provided: {router_key}", "type": "invalid_request_error"}}
    openai_server.enqueue(json_reply(refusal, 401))
    for text in ("2+2?", f"my key is {client_key}"):
        request = {"model": "auto", "messages": [{"role": "user", "content": text}]}
        call(router, "/v1/chat/completions", request, key=client_key)
    call(router, "/router/feedback", {"trace_id": TRACE, "score": 1, "comment": client_key}, key=client_key)
    stored_bytes = b"".join(path.read_bytes() for path in router.home.rglob("*") if path.is_file())
    assert stored_bytes.count(b'"kind":"request"') == 2
    assert b"[key]" in stored_bytes
    assert b"1234567890abcdef" not in stored_bytes


def test_usage_is_returned_as_json_and_csv_and_requires_a_key(start_router, openai_server, create_store, tmp_path):
    router = start_router(openai_base_url=openai_server.url, openai_api_key="sk-upstream", api_keys="rk-of-the-tests-1")
    assert call(router, "/router/usage")[0] == 401
    assert call(router, "/router/feedback", {"trace_id": TRACE, "score": 1})[0] == 401
    empty = json.loads(call(router, "/router/usage", key="rk-of-the-tests-1")[1])
    assert empty["total"]["requests"] == 0
    for user in ("ada", "bob", "ada"):
        request = {"model": "auto", "messages": [{"role": "user", "content": "2+2?"}], "user": user}
        assert call(router, "/v1/chat/completions", request, key="rk-of-the-tests-1")[0] == 200
    drain(shippers_for(load(home=router.home, mlflow_tracking_uri=create_store(tmp_path / "store")))[0])
    answer = json.loads(call(router, "/router/usage?group_by=user", key="rk-of-the-tests-1")[1])
    assert [(row["user"], row["requests"], row["input_tokens"]) for row in answer["rows"]] == [
        ("ada", 2, 24),
        ("bob", 1, 12),
    ]
    assert answer["total"]["cost_usd"] > 0
    status, text = call(router, "/router/usage?group_by=user&format=csv", key="rk-of-the-tests-1")
    assert status == 200
    assert text.decode().splitlines()[0].startswith("user,requests,answered")
    status, text = call(router, "/router/usage?group_by=shoe", key="rk-of-the-tests-1")
    assert status == 400
    assert "shoe" in json.loads(text)["error"]["message"]

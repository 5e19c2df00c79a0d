"""What is parsed without a network: events, bodies, policies, questions and outcomes."""

from __future__ import annotations

import gzip
import json
import tempfile
from pathlib import Path

from fake_openai import chat_events

from calibration.outcomes import InputError, read_outcomes
from calibration.questions import QuestionError, read
from router.errors import BadRequestError
from router.planning import read_request
from router.policy.decision import decide
from router.policy.document import DOCUMENT, WEIGHTS, PolicyError, dump, parse
from router.policy.features import read_question
from router.policy.prediction import predict
from router.surfaces import CHAT
from router.wire import bodies
from router.wire.chat_stream import ChatStream
from router.wire.responses_stream import ResponsesStream

EVENTS = (
    b"".join(chat_events("gpt-4o", ("Hello", " there"), usage=True)),
    b'data: {"id":"a","model":"m","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"c",'
    b'"function":{"name":"f","arguments":"{}"}}]},"finish_reason":null}],"usage":null}\r\n\r\ndata: [DONE]\r\n\r\n',
    b'event: response.completed\ndata: {"type":"response.completed","response":{"id":"r","model":"m",'
    b'"usage":{"input_tokens":1,"output_tokens":2}}}\n\n: comment\n\ndata: {"error":{"message":"no"}}\n\n',
)


def check_events(data: bytes) -> None:
    """A stream gives the same bytes however it is cut, and raises nothing."""
    for make in (
        lambda: ChatStream(strip_usage=True, echo="auto"),
        lambda: ChatStream(),
        lambda: ResponsesStream(echo="auto"),
        lambda: ResponsesStream(),
    ):
        whole, cut, bytewise = make(), make(), make()
        passed = whole.feed(data) + whole.rest()
        middle = len(data) // 2
        assert cut.feed(data[:middle]) + cut.feed(data[middle:]) + cut.rest() == passed
        one_by_one = b"".join(bytewise.feed(data[i : i + 1]) for i in range(len(data))) + bytewise.rest()
        assert one_by_one == passed
        assert (bytewise.usage, bytewise.model, bytewise.id) == (whole.usage, whole.model, whole.id)
        assert bytewise.content() == whole.content()


BODIES = (
    b'{"model":"auto","messages":[{"role":"user","content":"2+2?"}],"stream":true}',
    b'{ "messages" : [{"role":"system","content":[{"type":"text","text":"a"}]},{"role":"user","content":"b"}],'
    b' "stream_options" : {"include_usage" : false, "x":1}, "stream": true, "model" : "gpt-4o" , "tools":[] }',
    '{"model":"gpt-4o","messages":[{"role":"user","content":"é😀\\u0041"}],"n":1e5,"seed":-0.0}'.encode(),
)


def check_bodies(data: bytes) -> None:
    """A body that is taken says the same after its edits but for these; another one is refused in our words."""
    try:
        text = data.decode()
        request = read_request(data, CHAT)
        features = CHAT.features(request.fields) if "messages" in request.fields else None
    except (BadRequestError, ValueError):
        return
    edits = [bodies.naming(request.spans, data, "another")]
    usage = bodies.asking_for_usage(request.fields, request.spans)
    before = json.loads(text)
    after = json.loads(b"".join(bodies.edited((data,), [*edits, *([usage] if usage else [])])))
    assert after.pop("model") == "another"
    before.pop("model", None)
    if usage is not None:
        assert after.pop("stream_options")["include_usage"] is True
        options = before.pop("stream_options", None)
        assert options is None or isinstance(options, dict)
    assert repr(after) == repr(before)
    assert features is None or features.input_tokens >= 0


def _policy() -> dict[str, bytes]:
    from made_outcomes import made_outcomes

    from calibration.learning import learn
    from calibration.policies import load_prices, models_named

    learnt = learn(made_outcomes(120), models_named(("gpt-4o-mini", "gpt-4o"), load_prices()), 0, {})
    return dict(dump(learnt.policy))


class Policies:
    """The two files of a policy, either of them changed."""

    def __init__(self) -> None:
        self.files = _policy()

    @property
    def examples(self) -> tuple[bytes, ...]:
        return self.files[DOCUMENT], self.files[WEIGHTS]

    def check(self, data: bytes) -> None:
        """A policy is refused in our words, or it decides."""
        name = DOCUMENT if data.lstrip()[:1] in (b"{", b"[") else WEIGHTS
        try:
            policy = parse({**self.files, name: data})
        except PolicyError:
            return
        for text in ("What is 2 plus 2?", "", "é" * 500):
            features = read_question([{"role": "user", "content": text}])
            for target in (policy.default_target, 0.5, 0.999):
                decide(policy.rules, features, predict(policy.predictor, features), target)


QUESTIONS = (
    b'{"id":"a","question_type":"t","question":"What is 1 plus 1?","reference":2,"check":"number"}\n'
    b'{"messages":[{"role":"user","content":"Hi"}],"expected_facts":["hello"],"tools":[]}\n',
    b"question,reference,check,tolerance\nWhat is 1 plus 1?,2,number,0.1\n",
    b'{"id":"a","messages":[{"role":"user","content":"?"}],"outcomes":{"m":{"score":1,"output_tokens":3}}}\n',
    gzip.compress(b'{"question":"q?","reference":"A","check":"choice"}\n', mtime=0),
)


def check_questions(data: bytes) -> None:
    """A file of questions or outcomes is read, or refused in one line that names it."""
    with tempfile.TemporaryDirectory() as folder:
        names = ("q.jsonl.gz", "q.csv.gz") if data[:2] == b"\x1f\x8b" else ("q.jsonl", "q.csv", "q.json")
        for name in names:
            path = Path(folder) / name
            path.write_bytes(data)
            try:
                read(str(path))
            except QuestionError as error:
                assert str(path) in str(error)
            if "jsonl" in name:
                try:
                    read_outcomes([path])
                except InputError as error:
                    assert str(path) in str(error)

"""What is parsed without a network: events, bodies, policies, questions and outcomes."""

from __future__ import annotations

import gzip
import io
import json
import tempfile
from pathlib import Path

import numpy as np
from fake_openai import chat_events

from calibration.outcomes import InputError, read_outcomes
from calibration.questions import QuestionError, read
from router.errors import BadRequestError
from router.planning import Surface, read_request
from router.policy.decision import decide
from router.policy.document import DOCUMENT, WEIGHTS, PolicyError, dump, parse
from router.policy.features import RequestError, read_question
from router.policy.prediction import predict
from router.surfaces import CHAT, COMPLETIONS, RESPONSES
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
    b'{"input":"2+2?"}',
    b'{"prompt":["a","b"],"model":"gpt-4o","max_tokens":5}',
    b'{"input":[{"role":"user","content":[{"type":"input_text","text":"a"}]}],"instructions":"b","model":"auto"}',
    '{"model":"gpt-4o","messages":[{"role":"user","content":"é😀\\u0041"}],"n":1e5,"seed":-0.0}'.encode(),
)


def check_bodies(data: bytes) -> None:
    """A body that is taken says the same after its edits but for these; another one is refused in our words."""
    for surface in (CHAT, COMPLETIONS, RESPONSES):
        _check_body(data, surface)


def _check_body(data: bytes, surface: Surface) -> None:
    try:
        text = data.decode()
        request = read_request(data, surface)
        features = surface.features(request.fields)
    except (BadRequestError, RequestError, UnicodeDecodeError):
        return
    edits = [bodies.naming(request.spans, data, "another")]
    usage = bodies.asking_for_usage(request.fields, request.spans) if "model" in request.fields else None
    before = json.loads(text)
    after = json.loads(b"".join(bodies.edited((data,), [*edits, *([usage] if usage else [])])))
    assert after.pop("model") == "another"
    before.pop("model", None)
    if usage is not None:
        assert after.pop("stream_options")["include_usage"] is True
        options = before.pop("stream_options", None)
        assert options is None or isinstance(options, dict)
    assert repr(after) == repr(before)
    assert features.input_tokens >= 0


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
        of_arrays = tuple(bytes([number, kind]) + b"\0" * 8 for number in range(20) for kind in range(4))
        return self.files[DOCUMENT], self.files[DOCUMENT], self.files[WEIGHTS], *of_arrays

    def check(self, data: bytes) -> None:
        """A policy is refused in our words, or it decides."""
        if data[:1] < b"\x20" and len(data) > 2:
            files = {WEIGHTS: self._with_another_array(data[0], data[1], data[2:])}
        else:
            files = {DOCUMENT if data.lstrip()[:1] in (b"{", b"[") else WEIGHTS: data}
        try:
            policy = parse({**self.files, **files})
        except PolicyError:
            return
        for text in ("What is 2 plus 2?", "", "é" * 500):
            features = read_question([{"role": "user", "content": text}])
            for target in (policy.default_target, 0.5, 0.999):
                decide(policy.rules, features, predict(policy.predictor, features), target)

    def _with_another_array(self, number: int, kind: int, data: bytes) -> bytes:
        """The weights with one array changed: its shape, its type, or its bytes."""
        with np.load(io.BytesIO(self.files[WEIGHTS])) as archive:
            arrays = {name: archive[name] for name in archive.files}
        name = sorted(arrays)[number % len(arrays)]
        array = arrays[name]
        if kind % 4 == 0:
            arrays[name] = array[:0]
        elif kind % 4 == 1:
            arrays[name] = array.astype(np.int64)
        else:
            raw = bytearray(array.tobytes())
            raw[: len(data)] = data[: len(raw)]
            arrays[name] = np.frombuffer(bytes(raw), array.dtype).reshape(array.shape)
        out = io.BytesIO()
        np.savez(out, **arrays)
        return out.getvalue()


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

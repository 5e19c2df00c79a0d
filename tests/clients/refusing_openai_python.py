"""The official Python client, chat and responses, with the parameters that its users set. Also in version 1.40."""

from __future__ import annotations

from functools import partial

from checking import ANSWER, MODEL, QUESTION, check
from openai import AsyncOpenAI, OpenAI
from usual import ALONE, CAPITAL, SAMPLING, TOGETHER, Capital

client = OpenAI()
messages = [{"role": "user", "content": QUESTION}]
parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
tools = [{"type": "function", "function": {"name": "weather", "parameters": parameters}}]
function = {"type": "function", "name": "weather", "parameters": parameters, "strict": False}
schema = {"type": "json_schema", "json_schema": {"name": "capital", "schema": Capital.model_json_schema()}}

LABELS = {"extra_body": {"store": False, "metadata": {"a": "b"}, "service_tier": "auto", "prompt_cache_key": "a"}}


def ask(**fields):
    return client.chat.completions.create(model=MODEL, messages=messages, **fields)


def chat(**fields) -> None:
    assert ask(**fields).choices[0].message.content == ANSWER


def stream(**fields) -> None:
    chunks = list(ask(stream=True, stream_options={"include_usage": True}, **fields))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == ANSWER
    assert chunks[-1].usage.total_tokens > 0


async def asynchronous() -> None:
    async with AsyncOpenAI() as async_client:
        answer = await async_client.chat.completions.create(model=MODEL, messages=messages, **TOGETHER)
        assert answer.choices[0].message.content == ANSWER


def several() -> None:
    assert [choice.message.content for choice in ask(n=2, temperature=0.7, max_tokens=50).choices] == [ANSWER, ANSWER]


def two_turns(**fields) -> None:
    answer = ask(tools=tools, parallel_tool_calls=False, **fields).choices[0].message
    (call,) = answer.tool_calls
    assert (call.function.name, call.function.arguments) == ("weather", '{"city": "Paris"}')
    conversation = [*messages, answer, {"role": "tool", "tool_call_id": call.id, "content": "rain"}]
    answer = client.chat.completions.create(model=MODEL, messages=conversation, tools=tools, **fields)
    assert answer.choices[0].message.content == ANSWER


def streamed_call() -> None:
    chunks = ask(tools=tools, tool_choice="required", stream=True, temperature=0, max_tokens=100)
    calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
    assert "".join(call.function.arguments or "" for call in calls) == '{"city": "Paris"}'


def structured() -> None:
    answer = ask(response_format=schema, temperature=0, max_tokens=300, seed=7)
    assert Capital.model_validate_json(answer.choices[0].message.content) == CAPITAL


def parsed() -> None:
    answer = client.beta.chat.completions.parse(
        model=MODEL, messages=messages, response_format=Capital, temperature=0, max_tokens=300
    )
    assert answer.choices[0].message.parsed == CAPITAL


def respond(**fields):
    return client.responses.create(model=MODEL, input=QUESTION, **fields)


def response(**fields) -> None:
    assert respond(**fields).output_text == ANSWER


def response_stream() -> None:
    with client.responses.stream(model=MODEL, input=QUESTION, max_output_tokens=200, **SAMPLING) as events:
        assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == ANSWER
        assert events.get_final_response().usage.total_tokens > 0


def response_two_turns() -> None:
    options = {"tools": [function], "parallel_tool_calls": False, "max_output_tokens": 200, **SAMPLING}
    (call,) = respond(**options).output
    assert call.arguments == '{"city": "Paris"}'
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    conversation = [*messages, call.model_dump(exclude_none=True), output]
    assert client.responses.create(model=MODEL, input=conversation, **options).output_text == ANSWER


def continued() -> None:
    first = respond(**SAMPLING)
    assert respond(previous_response_id=first.id, max_output_tokens=200, **SAMPLING).output_text == ANSWER
    assert respond(previous_response_id=first.id, reasoning={"effort": "minimal"}).output_text == ANSWER


def response_parsed() -> None:
    answer = client.responses.parse(model=MODEL, input=QUESTION, text_format=Capital, max_output_tokens=300, **SAMPLING)
    assert answer.output_parsed == CAPITAL


for name, value in ALONE.items():
    check(name, partial(chat, **{name: value}))
for effort in ("none", "minimal", "low", "high", "max"):
    check(f"reasoning_effort {effort}", partial(chat, extra_body={"reasoning_effort": effort}))
check("the default values", partial(chat, temperature=1, top_p=1, presence_penalty=0, frequency_penalty=0, n=1))
check("top_logprobs", partial(chat, logprobs=True, top_logprobs=3))
check("more tokens than it has", partial(chat, max_tokens=1_000_000))
check("together", partial(chat, **TOGETHER))
check("together, streamed", partial(stream, **TOGETHER))
check("asynchronous", asynchronous)
check("n", several)
check("labels", partial(chat, **LABELS))
check("json_object", partial(chat, response_format={"type": "json_object"}, temperature=0, max_tokens=200))
check("nulls", partial(chat, max_tokens=None, temperature=None, stop=None, logprobs=None))
check("both limits", partial(chat, max_tokens=200, extra_body={"max_completion_tokens": 200}))
check("tools", two_turns)
check("tools, together", partial(two_turns, **TOGETHER))
check("tools, with an effort", partial(two_turns, extra_body={"reasoning_effort": "medium"}))
check("tools, streamed", streamed_call)
check("response_format", structured)
check("parse", parsed)
if hasattr(client, "responses"):
    for name, value in {**SAMPLING, "user": "someone", "max_output_tokens": 200}.items():
        check(f"responses: {name}", partial(response, **{name: value}))
    for effort in ("none", "minimal", "low", "high", "max"):
        check(f"responses: effort {effort}", partial(response, reasoning={"effort": effort}, temperature=0))
    check("responses: the default values", partial(response, temperature=1, top_p=1))
    check("responses: logprobs", partial(response, include=["message.output_text.logprobs"], top_logprobs=3))
    check("responses: streamed", response_stream)
    check("responses: tools", response_two_turns)
    check("responses: continued", continued)
    check("responses: parse", response_parsed)

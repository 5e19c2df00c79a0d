"""The official Python client: sync, async, streams, tools, structured output, files, errors. Also in version 1.40."""

from __future__ import annotations

import openai
from checking import ANSWER, MODEL, QUESTION, check, check_routed
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

client = OpenAI()
messages = [{"role": "user", "content": QUESTION}]
parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
tools = [{"type": "function", "function": {"name": "weather", "description": "d", "parameters": parameters}}]


class Capital(BaseModel):
    city: str
    population: int


def chat() -> None:
    answer = client.chat.completions.create(model=MODEL, messages=messages)
    assert answer.choices[0].message.content == ANSWER
    assert answer.usage.prompt_tokens_details.cached_tokens == 4 if openai.__version__ > "1.50" else answer.usage
    assert answer.system_fingerprint == "fp_clients"


def raw() -> None:
    answer = client.chat.completions.with_raw_response.create(model=MODEL, messages=messages)
    assert answer.headers["x-request-id"] == "req_clients"
    assert answer.headers["x-ratelimit-remaining-requests"] == "99"


def streamed() -> None:
    chunks = list(client.chat.completions.create(model=MODEL, messages=messages, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == ANSWER
    assert all(chunk.usage is None and "usage" not in chunk.model_fields_set for chunk in chunks)


def streamed_usage() -> None:
    options = {"include_usage": True}
    chunks = list(client.chat.completions.create(model=MODEL, messages=messages, stream=True, stream_options=options))
    assert chunks[-1].usage.total_tokens == 17 and chunks[-1].choices == []


async def asynchronous() -> None:
    async with AsyncOpenAI() as async_client:
        stream = await async_client.chat.completions.create(model=MODEL, messages=messages, stream=True)
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == ANSWER
        assert (await async_client.chat.completions.create(model=MODEL, messages=messages)).choices[
            0
        ].message.content == ANSWER


def several() -> None:
    answer = client.chat.completions.create(model=MODEL, messages=messages, n=3, logprobs=True)
    assert len(answer.choices) == 3 and answer.choices[2].logprobs.content[0].logprob == -0.1


def tool_calls() -> None:
    answer = client.chat.completions.create(model=MODEL, messages=messages, tools=tools)
    call = answer.choices[0].message.tool_calls[0]
    assert (call.function.name, call.function.arguments) == ("weather", '{"city": "Paris"}')
    conversation = [*messages, answer.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "rain"}]
    assert (
        client.chat.completions.create(model=MODEL, messages=conversation, tools=tools).choices[0].message.content
        == ANSWER
    )


def streamed_tool_calls() -> None:
    pieces = ""
    for chunk in client.chat.completions.create(model=MODEL, messages=messages, tools=tools, stream=True):
        for call in chunk.choices[0].delta.tool_calls or ():
            pieces += call.function.arguments or ""
    assert pieces == '{"city": "Paris"}'


def parsed() -> None:
    answer = client.beta.chat.completions.parse(model=MODEL, messages=messages, response_format=Capital)
    assert answer.choices[0].message.parsed == Capital(city="Paris", population=3)


def images() -> None:
    url = {"url": "data:image/png;base64," + "A" * 300_000}
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": url}]
    answer = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": parts}])
    assert answer.choices[0].message.content == ANSWER


def legacy() -> None:
    assert client.completions.create(model=MODEL, prompt="The").choices[0].text == ANSWER
    chunks = client.completions.create(model=MODEL, prompt="The", stream=True)
    assert "".join(chunk.choices[0].text for chunk in chunks) == ANSWER


def vectors() -> None:
    answer = client.embeddings.create(model="text-embedding-3-small", input=["a", "b"])
    assert len(answer.data) == 2 and abs(answer.data[1].embedding[2] - 0.3) < 1e-6


def files() -> None:
    assert client.files.create(file=b"x\x00" * 200_000, purpose="batch").bytes == 400_000
    transcription = client.audio.transcriptions.create(model="whisper-1", file=("a.wav", b"\x00" * 5000))
    assert transcription.text == "5000 bytes"


def speech() -> None:
    assert client.audio.speech.create(model="tts-1", voice="alloy", input="hi").content == bytes(range(256)) * 100


def listing() -> None:
    assert {"gpt-4o", "gpt-4o-mini"} <= {model.id for model in client.models.list()}


def errors() -> None:
    client_without_retries = client.with_options(max_retries=0)
    try:
        client_without_retries.chat.completions.create(model="gpt-none", messages=messages)
    except openai.NotFoundError as error:
        assert (error.code, error.param, error.request_id) == ("model_not_found", "model", "req_clients")
    else:
        raise AssertionError("no error")
    try:
        client_without_retries.chat.completions.create(model=MODEL, messages=None)
    except openai.BadRequestError as error:
        assert error.param == "messages"
    else:
        raise AssertionError("no error")


def response() -> None:
    assert client.responses.create(model=MODEL, input=QUESTION).output_text == ANSWER
    with client.responses.stream(model=MODEL, input=QUESTION) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        assert text == ANSWER == stream.get_final_response().output_text
    assert client.responses.parse(model=MODEL, input=QUESTION, text_format=Capital).output_parsed.city == "Paris"
    function = {"type": "function", "name": "weather", "parameters": parameters, "strict": False}
    answer = client.responses.create(model=MODEL, input=QUESTION, tools=[function])
    assert answer.output[0].arguments == '{"city": "Paris"}'


def history() -> None:
    earlier_messages = [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "Prove that there are infinitely many primes."},
        {"role": "assistant", "content": "Take any finite list of primes, multiply them and add one."},
    ]
    answer = client.chat.completions.create(model=MODEL, messages=[*earlier_messages, *messages])
    assert answer.choices[0].message.content == ANSWER


CHECKS = [chat, raw, streamed, streamed_usage, asynchronous, several, tool_calls, streamed_tool_calls, parsed, images]
CHECKS += [legacy, vectors, files, speech, listing, errors]
if hasattr(client, "responses"):
    CHECKS.append(response)
for test in CHECKS:
    check(test.__name__, test)
check_routed("history", history)

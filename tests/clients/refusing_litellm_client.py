"""The litellm SDK, chat and responses, with the parameters that its users set."""

import os
from functools import partial

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
import litellm
from checking import ANSWER, BASE_URL, MODEL, QUESTION, check
from usual import ALONE, CAPITAL, SAMPLING, TOGETHER, Capital

messages = [{"role": "user", "content": QUESTION}]
connection = {"model": f"openai/{MODEL}", "api_base": BASE_URL, "num_retries": 0}
parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
tools = [{"type": "function", "function": {"name": "weather", "parameters": parameters}}]


def completion(**fields) -> None:
    assert litellm.completion(messages=messages, **connection, **fields).choices[0].message.content == ANSWER


def stream(**fields) -> None:
    fields |= {"stream": True, "stream_options": {"include_usage": True}}
    chunks = list(litellm.completion(messages=messages, **connection, **fields))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == ANSWER


async def asynchronous(**fields) -> None:
    assert (await litellm.acompletion(messages=messages, **connection, **fields)).choices[0].message.content == ANSWER


def two_turns(**fields) -> None:
    fields |= {"tools": tools, "parallel_tool_calls": False}
    answer = litellm.completion(messages=messages, **connection, **fields).choices[0].message
    (call,) = answer.tool_calls
    assert call.function.arguments == '{"city": "Paris"}'
    conversation = [*messages, answer, {"role": "tool", "tool_call_id": call.id, "content": "rain"}]
    assert litellm.completion(messages=conversation, **connection, **fields).choices[0].message.content == ANSWER


def structured(**fields) -> None:
    answer = litellm.completion(messages=messages, response_format=Capital, **connection, **fields)
    assert Capital.model_validate_json(answer.choices[0].message.content) == CAPITAL


def responses(**fields) -> None:
    assert litellm.responses(input=QUESTION, **connection, **fields).output[0].content[0].text == ANSWER


def streamed_responses(**fields) -> None:
    events = litellm.responses(input=QUESTION, stream=True, **connection, **fields)
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == ANSWER


for name, value in ALONE.items():
    check(name, partial(completion, **{name: value}))
for effort in ("minimal", "medium"):
    check(f"reasoning_effort {effort}", partial(completion, reasoning_effort=effort))
check("n", partial(completion, n=2, temperature=0.7))
check("together", partial(completion, **TOGETHER))
check("together, streamed", partial(stream, **TOGETHER))
check("asynchronous", partial(asynchronous, **TOGETHER))
check("tools", partial(two_turns, temperature=0, max_tokens=200))
check("structured", partial(structured, temperature=0, max_tokens=300))
for name, value in {**SAMPLING, "max_output_tokens": 200, "reasoning": {"effort": "minimal"}}.items():
    check(f"responses: {name}", partial(responses, **{name: value}))
check("responses: streamed", partial(streamed_responses, max_output_tokens=200, **SAMPLING))

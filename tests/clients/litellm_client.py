"""The litellm SDK: completion, streams, tools, responses and embeddings."""

import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
import litellm
from checking import ANSWER, BASE_URL, MODEL, QUESTION, check

model = f"openai/{MODEL}"
messages = [{"role": "user", "content": QUESTION}]
parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
tools = [{"type": "function", "function": {"name": "weather", "parameters": parameters}}]


def completion() -> None:
    answer = litellm.completion(model=model, messages=messages, api_base=BASE_URL)
    assert answer.choices[0].message.content == ANSWER and answer.usage.total_tokens == 17


def stream() -> None:
    chunks = litellm.completion(model=model, messages=messages, api_base=BASE_URL, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == ANSWER


async def asynchronous() -> None:
    answer = await litellm.acompletion(model=model, messages=messages, api_base=BASE_URL)
    assert answer.choices[0].message.content == ANSWER


def tool_calls() -> None:
    answer = litellm.completion(model=model, messages=messages, api_base=BASE_URL, tools=tools)
    assert answer.choices[0].message.tool_calls[0].function.arguments == '{"city": "Paris"}'


def responses() -> None:
    answer = litellm.responses(model=model, input=QUESTION, api_base=BASE_URL)
    assert answer.output[0].content[0].text == ANSWER


def embedding() -> None:
    answer = litellm.embedding(model="openai/text-embedding-3-small", input=["a"], api_base=BASE_URL)
    assert len(answer.data[0]["embedding"]) == 3


def error() -> None:
    try:
        litellm.completion(model="openai/gpt-none", messages=messages, api_base=BASE_URL, num_retries=0)
    except litellm.NotFoundError:
        return
    raise AssertionError("no error")


for test in (completion, stream, asynchronous, tool_calls, responses, embedding, error):
    check(test.__name__, test)

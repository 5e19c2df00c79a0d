"""instructor in each of its ways to an answer, with the parameters that its users set."""

from functools import partial

import instructor
from checking import MODEL, QUESTION, check
from openai import AsyncOpenAI, OpenAI
from usual import ALONE, CAPITAL, SAMPLING, TOGETHER, Capital

messages = [{"role": "user", "content": QUESTION}]
request = {"model": MODEL, "messages": messages}
USUAL = {"temperature": 0, "max_tokens": 300, "max_retries": 1}


def extract(mode=instructor.Mode.TOOLS, **parameters) -> None:
    client = instructor.from_openai(OpenAI(), mode=mode)
    answer = client.chat.completions.create(**request, response_model=Capital, **parameters)
    assert answer.model_dump() == CAPITAL.model_dump()


def create_with_completion(**parameters) -> None:
    client = instructor.from_openai(OpenAI())
    answer, completion = client.chat.completions.create_with_completion(**request, response_model=Capital, **parameters)
    assert answer.city == "Paris" and completion.usage.total_tokens > 0


def stream_partially(mode, **parameters) -> None:
    client = instructor.from_openai(OpenAI(), mode=mode)
    parts = list(client.chat.completions.create_partial(**request, response_model=Capital, **parameters))
    assert parts[-1].city == "Paris"


async def asynchronous(**parameters) -> None:
    client = instructor.from_openai(AsyncOpenAI())
    answer = await client.chat.completions.create(**request, response_model=Capital, **parameters)
    assert answer.population == 3


for name, value in ALONE.items():
    check(name, partial(extract, **{name: value}))
for effort in ("minimal", "medium"):
    check(f"reasoning_effort {effort}", partial(extract, reasoning_effort=effort))
check("together", partial(extract, **TOGETHER))
check("json schema", partial(extract, instructor.Mode.JSON_SCHEMA, **USUAL))
check("tools, strict", partial(extract, instructor.Mode.TOOLS_STRICT, **USUAL))
check("with its completion", partial(create_with_completion, **USUAL))
check("in parts, by tools", partial(stream_partially, instructor.Mode.TOOLS, **USUAL))
check("in parts, by schema", partial(stream_partially, instructor.Mode.JSON_SCHEMA, **USUAL))
check("asynchronous", partial(asynchronous, **USUAL))
check("responses", partial(extract, instructor.Mode.RESPONSES_TOOLS, max_output_tokens=300, **SAMPLING))

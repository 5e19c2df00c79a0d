"""instructor: answers as pydantic models, by tools, by JSON and by schema, streamed in parts."""

import instructor
from checking import MODEL, QUESTION, check, check_routed
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

messages = [{"role": "user", "content": QUESTION}]


class Capital(BaseModel):
    city: str
    population: int


def build_check(mode):
    def extract() -> None:
        client = instructor.from_openai(OpenAI(), mode=mode)
        answer = client.chat.completions.create(model=MODEL, messages=messages, response_model=Capital)
        assert answer.model_dump() == {"city": "Paris", "population": 3}

    return extract


def extraction() -> None:
    text = "Paris, the capital of France, had 2,102,650 residents in January 2023."
    request_messages = [{"role": "user", "content": f"Extract the city and its population from this text: {text}"}]
    client = instructor.from_openai(OpenAI(), mode=instructor.Mode.TOOLS)
    answer = client.chat.completions.create(model=MODEL, messages=request_messages, response_model=Capital)
    assert answer.model_dump() == {"city": "Paris", "population": 3}


def partial() -> None:
    client = instructor.from_openai(OpenAI())
    parts = list(client.chat.completions.create_partial(model=MODEL, messages=messages, response_model=Capital))
    assert parts[-1].city == "Paris"


async def asynchronous() -> None:
    client = instructor.from_openai(AsyncOpenAI())
    answer = await client.chat.completions.create(model=MODEL, messages=messages, response_model=Capital)
    assert answer.population == 3


check("tools", build_check(instructor.Mode.TOOLS))
check("json schema", build_check(instructor.Mode.JSON_SCHEMA))
check("partial stream", partial)
check("asynchronous", asynchronous)
check_routed("extraction", extraction)

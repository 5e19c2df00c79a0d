"""pydantic-ai: runs, streams, tools and typed output, over chat completions and over responses."""

from checking import ANSWER, MODEL, QUESTION, check
from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel


class Capital(BaseModel):
    city: str
    population: int


def run_checks(kind: str, model) -> None:
    async def run() -> None:
        result = await Agent(model).run(QUESTION)
        assert result.output == ANSWER
        assert result.usage.input_tokens == 12 if not callable(result.usage) else result.usage().input_tokens == 12

    async def stream() -> None:
        async with Agent(model).run_stream(QUESTION) as result:
            pieces = [piece async for piece in result.stream_text(delta=True)]
        assert "".join(pieces) == ANSWER

    async def tools() -> None:
        agent = Agent(model)
        cities = []

        @agent.tool_plain
        def weather(city: str) -> str:
            cities.append(city)
            return "rain"

        assert (await agent.run(QUESTION)).output == ANSWER
        assert cities == ["Paris"]

    async def typed() -> None:
        assert (await Agent(model, output_type=Capital).run(QUESTION)).output == Capital(city="Paris", population=3)

    for test in (run, stream, tools, typed):
        check(f"{kind}: {test.__name__}", test)


run_checks("chat", OpenAIChatModel(MODEL))
run_checks("responses", OpenAIResponsesModel(MODEL))

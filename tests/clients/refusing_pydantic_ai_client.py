"""pydantic-ai over chat completions and over responses, with the settings that its users make."""

from functools import partial

from checking import ANSWER, MODEL, QUESTION, check
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from usual import ALONE, CAPITAL, SAMPLING, Capital

OWN = {"stop": "stop_sequences", "user": "openai_user", "logprobs": "openai_logprobs"}  # pydantic-ai's names
CHAT = {OWN.get(name, name): value for name, value in ALONE.items()}
CHAT |= {"openai_reasoning_effort": "minimal", "openai_top_logprobs": 3}
RESPONSES = {"max_tokens": 200, **SAMPLING, "openai_user": "someone", "openai_reasoning_effort": "minimal"}
RESPONSES |= {"openai_logprobs": True, "openai_text_verbosity": "low"}
USUAL = {"max_tokens": 200, "parallel_tool_calls": False, **SAMPLING}


async def run(model, **settings) -> None:
    assert (await Agent(model).run(QUESTION, model_settings=settings)).output == ANSWER


async def stream(model, **settings) -> None:
    async with Agent(model).run_stream(QUESTION, model_settings=settings) as result:
        pieces = [piece async for piece in result.stream_text(delta=True)]
    assert "".join(pieces) == ANSWER


async def tools(model, **settings) -> None:
    agent = Agent(model, model_settings=settings)
    cities = []

    @agent.tool_plain
    def weather(city: str) -> str:
        cities.append(city)
        return "rain"

    assert (await agent.run(QUESTION)).output == ANSWER
    assert cities == ["Paris"]


async def streamed_tools(model, **settings) -> None:
    agent = Agent(model, model_settings=settings)
    agent.tool_plain(weather)
    async with agent.run_stream(QUESTION) as result:
        assert await result.get_output() == ANSWER


def weather(city: str) -> str:
    """The weather in a city."""
    return f"rain in {city}"


async def typed(model, **settings) -> None:
    assert (await Agent(model, output_type=Capital).run(QUESTION, model_settings=settings)).output == CAPITAL


async def native(model, **settings) -> None:
    agent = Agent(model, output_type=NativeOutput(Capital))
    assert (await agent.run(QUESTION, model_settings=settings)).output == CAPITAL


KINDS = {"chat": (OpenAIChatModel(MODEL), CHAT), "responses": (OpenAIResponsesModel(MODEL), RESPONSES)}
for kind, (model, alone) in KINDS.items():
    for name, value in alone.items():
        check(f"{kind}: {name}", partial(run, model, **{name: value}))
    for test in (run, stream, tools, streamed_tools, typed, native):
        check(f"{kind}: {test.__name__}, together", partial(test, model, **USUAL))
    check(f"{kind}: tools with an effort", partial(tools, model, openai_reasoning_effort="medium", **USUAL))

"""openai-agents: runs, streams, tools and typed output, over responses and over chat completions."""

from agents import Agent, Runner, function_tool, set_default_openai_api, set_tracing_disabled
from checking import ANSWER, MODEL, QUESTION, check, check_routed
from pydantic import BaseModel

set_tracing_disabled(True)


class Capital(BaseModel):
    city: str
    population: int


@function_tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"rain in {city}"


@function_tool
def convert_currency(amount: float, source: str, target: str) -> str:
    """Convert an amount of money from one currency to another."""
    return f"{amount} {source} in {target}"


async def run() -> None:
    assert (await Runner.run(Agent(name="a", model=MODEL), QUESTION)).final_output == ANSWER


async def stream() -> None:
    result = Runner.run_streamed(Agent(name="a", model=MODEL), QUESTION)
    kinds = [event.type async for event in result.stream_events()]
    assert result.final_output == ANSWER and "raw_response_event" in kinds


async def tools() -> None:
    result = await Runner.run(Agent(name="a", model=MODEL, tools=[weather]), QUESTION)
    assert result.final_output == ANSWER
    assert any("rain in Paris" in str(item.raw_item) for item in result.new_items)


async def two_tools() -> None:
    agent = Agent(name="a", instructions="You help travellers.", model=MODEL, tools=[weather, convert_currency])
    result = await Runner.run(agent, "What is the weather in the city of Paris?")
    assert result.final_output == ANSWER
    assert any("rain in Paris" in str(item.raw_item) for item in result.new_items)


async def typed() -> None:
    agent = Agent(name="a", model=MODEL, output_type=Capital)
    assert (await Runner.run(agent, QUESTION)).final_output == Capital(city="Paris", population=3)


for api in ("responses", "chat_completions"):
    set_default_openai_api(api)
    for test in (run, stream, tools, typed):
        check(f"{api}: {test.__name__}", test)
    check_routed(f"{api}: two tools", two_tools)

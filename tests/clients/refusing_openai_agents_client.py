"""openai-agents over responses and over chat completions, with the settings that its users make."""

from functools import partial

from agents import Agent, ModelSettings, Runner, function_tool, set_default_openai_api, set_tracing_disabled
from checking import ANSWER, MODEL, QUESTION, check
from openai.types.shared import Reasoning
from usual import CAPITAL, SAMPLING, Capital

set_tracing_disabled(True)
ALONE = {"temperature": 0, "top_p": 0.9, "max_tokens": 200, "verbosity": "low", "store": False, "top_logprobs": 3}
ALONE |= {"presence_penalty": 0.1, "frequency_penalty": 0.1, "reasoning": Reasoning(effort="minimal")}
USUAL = {"max_tokens": 200, "include_usage": True, **SAMPLING}


@function_tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"rain in {city}"


def agent(settings_given, **options) -> Agent:
    settings = ModelSettings(**settings_given)
    return Agent(name="a", instructions="You help travellers.", model=MODEL, model_settings=settings, **options)


async def run(**fields) -> None:
    assert (await Runner.run(agent(fields), QUESTION)).final_output == ANSWER


async def stream(**fields) -> None:
    result = Runner.run_streamed(agent(fields), QUESTION)
    kinds = [event.type async for event in result.stream_events()]
    assert result.final_output == ANSWER and "raw_response_event" in kinds


async def tools(**fields) -> None:
    result = await Runner.run(agent({"parallel_tool_calls": False, **fields}, tools=[weather]), QUESTION)
    assert result.final_output == ANSWER
    assert any("rain in Paris" in str(item.raw_item) for item in result.new_items)


async def streamed_tools(**fields) -> None:
    result = Runner.run_streamed(agent(fields, tools=[weather]), QUESTION)
    async for _ in result.stream_events():
        pass
    assert result.final_output == ANSWER


async def typed(**fields) -> None:
    assert (await Runner.run(agent(fields, output_type=Capital), QUESTION)).final_output == CAPITAL


for api in ("responses", "chat_completions"):
    set_default_openai_api(api)
    for name, value in ALONE.items():
        check(f"{api}: {name}", partial(run, **{name: value}))
    for test in (run, stream, tools, streamed_tools, typed):
        check(f"{api}: {test.__name__}, together", partial(test, **USUAL))
    check(f"{api}: tools with an effort", partial(tools, reasoning=Reasoning(effort="medium"), **USUAL))

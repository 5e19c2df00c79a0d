"""An agent of openai-agents with a tool. Reads OPENAI_BASE_URL and OPENAI_API_KEY."""

from agents import Agent, Runner, function_tool, set_tracing_disabled

set_tracing_disabled(True)  # the SDK's own traces go to OpenAI; the router's are in MLflow


@function_tool
def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"rain in {city}"


agent = Agent(name="traveller", instructions="You help travellers.", model="auto", tools=[get_weather])
result = Runner.run_sync(agent, "What is the weather in Paris?")
print(result.final_output)

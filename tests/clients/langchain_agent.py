"""LangChain: an agent that calls one of its two tools and reads what it returned, whole and streamed."""

from checking import ANSWER, MODEL, check_routed
from langchain.agents import create_agent
from langchain_openai import ChatOpenAI


def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"rain in {city}"


def convert_currency(amount: float, source: str, target: str) -> str:
    """Convert an amount of money from one currency to another."""
    return f"{amount} {source} in {target}"


REQUEST = {"messages": [{"role": "user", "content": "What is the weather in the city of Paris?"}]}


def agent():
    model = ChatOpenAI(model=MODEL)
    return create_agent(model, tools=[get_weather, convert_currency], system_prompt="You help travellers.")


def run() -> None:
    messages = agent().invoke(REQUEST)["messages"]
    assert [message.type for message in messages] == ["human", "ai", "tool", "ai"]
    assert (messages[2].content, messages[3].content) == ("rain in Paris", ANSWER)


def stream() -> None:
    parts = [part for part, _ in agent().stream(REQUEST, stream_mode="messages") if part.type == "AIMessageChunk"]
    assert "".join(part.text for part in parts) == ANSWER


for test in (run, stream):
    check_routed(test.__name__, test)

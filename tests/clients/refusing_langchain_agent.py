"""LangChain over chat completions and over responses, with the parameters that its users set; an agent with a tool."""

from functools import partial

from checking import ANSWER, MODEL, QUESTION, check
from langchain.agents import create_agent
from langchain_openai import ChatOpenAI
from usual import ALONE, CAPITAL, SAMPLING, TOGETHER, Capital


def weather(city: str) -> str:
    """The weather in a city."""
    return f"rain in {city}"


def chat(**fields) -> None:
    assert ChatOpenAI(model=MODEL, **fields).invoke(QUESTION).text == ANSWER


def alone(name, value) -> None:
    unnamed_parameters = {"user", "logit_bias"} - set(
        ChatOpenAI.model_fields
    )  # parameters without a field in ChatOpenAI
    chat(**({"model_kwargs": {name: value}} if name in unnamed_parameters else {name: value}))


def stream(**fields) -> None:
    parts = list(ChatOpenAI(model=MODEL, stream_usage=True, **fields).stream(QUESTION))
    assert "".join(part.text for part in parts) == ANSWER
    assert any(part.usage_metadata for part in parts)


async def asynchronous(**fields) -> None:
    assert (await ChatOpenAI(model=MODEL, **fields).ainvoke(QUESTION)).text == ANSWER


def agent(**fields) -> None:
    executor = create_agent(ChatOpenAI(model=MODEL, **fields), tools=[weather], system_prompt="You help travellers.")
    messages = executor.invoke({"messages": [{"role": "user", "content": QUESTION}]})["messages"]
    assert [message.type for message in messages] == ["human", "ai", "tool", "ai"]
    assert (messages[2].content, messages[3].text) == ("rain in Paris", ANSWER)


def streamed_agent(**fields) -> None:
    executor = create_agent(ChatOpenAI(model=MODEL, **fields), tools=[weather])
    parts = executor.stream({"messages": [{"role": "user", "content": QUESTION}]}, stream_mode="messages")
    assert "".join(part.text for part, _ in parts if part.type == "AIMessageChunk") == ANSWER


def bind_tool(**fields) -> None:
    model = ChatOpenAI(model=MODEL, **fields).bind_tools([weather], tool_choice="weather", parallel_tool_calls=False)
    assert model.invoke(QUESTION).tool_calls[0]["args"] == {"city": "Paris"}


def structured(method, **fields) -> None:
    model = ChatOpenAI(model=MODEL, **fields).with_structured_output(Capital, method=method)
    assert model.invoke(QUESTION) == CAPITAL


for name, value in ALONE.items():
    check(name, partial(alone, name, value))
for effort in ("minimal", "medium"):
    check(f"reasoning_effort {effort}", partial(chat, reasoning_effort=effort))
check("n", partial(chat, n=2, temperature=0.7))
check("together", partial(chat, **TOGETHER))
for kind, options in {
    "chat": {"temperature": 0, "max_tokens": 200},
    "responses": {"use_responses_api": True, "max_tokens": 200, **SAMPLING},
}.items():
    check(f"{kind}: streamed", partial(stream, **options))
    check(f"{kind}: asynchronous", partial(asynchronous, **options))
    check(f"{kind}: agent", partial(agent, **options))
    check(f"{kind}: agent, streamed", partial(streamed_agent, **options))
    check(f"{kind}: agent with an effort", partial(agent, reasoning_effort="low", **options))
    check(f"{kind}: bound tool", partial(bind_tool, **options))
    check(f"{kind}: structured by schema", partial(structured, "json_schema", **options))
    check(f"{kind}: structured by function", partial(structured, "function_calling", **options))

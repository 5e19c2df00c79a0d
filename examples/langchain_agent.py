"""A LangChain agent with a tool. Needs langchain and langchain-openai. Reads OPENAI_BASE_URL and OPENAI_API_KEY."""

import os

from langchain.agents import create_agent
from langchain_openai import ChatOpenAI


def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"rain in {city}"


model = ChatOpenAI(model="auto", base_url=os.environ["OPENAI_BASE_URL"], include_response_headers=True)
agent = create_agent(model, tools=[get_weather])
result = agent.invoke({"messages": [{"role": "user", "content": "What is the weather in Paris?"}]})

# Each round of the agent is a request of its own, with a decision of its own.
for message in result["messages"]:
    if headers := message.response_metadata.get("headers"):
        print(headers["x-router-model"], "because", headers["x-router-reason"])
print(result["messages"][-1].content)

"""Pydantic AI with a typed answer. Needs pydantic-ai-slim[openai]. Reads OPENAI_BASE_URL and OPENAI_API_KEY."""

from pydantic import BaseModel
from pydantic_ai import Agent


class Capital(BaseModel):
    """A capital."""

    city: str
    population: int


agent = Agent("openai-chat:auto", output_type=Capital)
print(agent.run_sync("What is the capital of France?").output)

"""LlamaIndex. Needs llama-index-llms-openai-like. Reads OPENAI_BASE_URL and OPENAI_API_KEY."""

import os

from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike

model = OpenAILike(
    model="auto",
    api_base=os.environ["OPENAI_BASE_URL"],
    api_key=os.environ["OPENAI_API_KEY"],
    context_window=128_000,  # LlamaIndex does not know the routing names, so it has to be told
    is_chat_model=True,
    is_function_calling_model=True,
)
answer = model.chat([ChatMessage(role="user", content="What is the capital of France?")])
print(answer.raw.model)
print(answer.message.content)

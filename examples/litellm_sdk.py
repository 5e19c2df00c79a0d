"""The litellm SDK. Reads OPENAI_BASE_URL and OPENAI_API_KEY."""

import os

import litellm

answer = litellm.completion(
    model="openai/auto",  # `openai/` tells litellm to speak OpenAI's API
    messages=[{"role": "user", "content": "What is the capital of France?"}],
    api_base=os.environ["OPENAI_BASE_URL"],
)
headers = answer._hidden_params["additional_headers"]
print(headers["llm_provider-x-router-model"], "because", headers["llm_provider-x-router-reason"])
print(answer.choices[0].message.content)

"""The openai client for Python. It reads its address and key from OPENAI_BASE_URL and OPENAI_API_KEY."""

from openai import OpenAI

client = OpenAI()
question = {"role": "user", "content": "What is the capital of France?"}

answer = client.chat.completions.with_raw_response.create(model="auto", messages=[question])
print(answer.headers["x-router-model"], "because", answer.headers["x-router-reason"])
print(answer.parse().choices[0].message.content)

# Streams, tools, structured output and the Responses API work as usual.
for chunk in client.chat.completions.create(model="auto-cost", messages=[question], stream=True):
    for choice in chunk.choices:
        print(choice.delta.content or "", end="", flush=True)
print()

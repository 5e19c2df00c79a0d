"""Requests of real clients for `auto`: the last question decides, and the reason is reported.

The bodies of the first four are what the clients of tests/clients sent, but for the model's name; the chat with history
is written by hand. `make test-clients` runs the clients.
"""

import json

import httpx2
import openai
import pytest
from fake_openai import completion, json_reply
from test_app import command, parse_explanation
from test_chat_surfaces import response

WEATHER_QUESTION = "What is the weather in the city of Paris?"
CALL = {"name": "get_weather", "arguments": '{"city": "Paris"}'}
WEATHER = {"properties": {"city": {"type": "string"}}, "required": ["city"], "type": "object"}
CURRENCY = {
    "properties": {"amount": {"type": "number"}, "source": {"type": "string"}, "target": {"type": "string"}},
    "required": ["amount", "source", "target"],
    "type": "object",
}
TOOLS = [
    {"name": "get_weather", "description": "The weather in a city.", "parameters": WEATHER},
    {
        "name": "convert_currency",
        "description": "Convert an amount of money from one currency to another.",
        "parameters": CURRENCY,
    },
]
LANGCHAIN = {
    "model": "auto",
    "stream": False,
    "messages": [
        {"content": "You help travellers.", "role": "system"},
        {"content": WEATHER_QUESTION, "role": "user"},
        {
            "content": None,
            "role": "assistant",
            "tool_calls": [{"type": "function", "id": "call_1", "function": CALL}],
        },
        {"content": "rain in Paris", "role": "tool", "tool_call_id": "call_1"},
    ],
    "tools": [{"type": "function", "function": tool} for tool in TOOLS],
}
OPENAI_AGENTS = {
    "model": "auto",
    "include": [],
    "input": [
        {"content": WEATHER_QUESTION, "role": "user"},
        {
            "arguments": '{"city": "Paris"}',
            "call_id": "call_1",
            "name": "weather",
            "type": "function_call",
            "id": "fc_1",
            "status": "completed",
        },
        {"call_id": "call_1", "output": "rain in Paris", "type": "function_call_output"},
    ],
    "instructions": "You help travellers.",
    "tools": [
        {
            "name": "weather",
            "parameters": {
                "properties": {"city": {"title": "City", "type": "string"}},
                "required": ["city"],
                "title": "weather_args",
                "type": "object",
                "additionalProperties": False,
            },
            "strict": True,
            "type": "function",
            "description": "The weather in a city.",
        },
        {
            "name": "convert_currency",
            "parameters": {
                "properties": {
                    "amount": {"title": "Amount", "type": "number"},
                    "source": {"title": "Source", "type": "string"},
                    "target": {"title": "Target", "type": "string"},
                },
                "required": ["amount", "source", "target"],
                "title": "convert_currency_args",
                "type": "object",
                "additionalProperties": False,
            },
            "strict": True,
            "type": "function",
            "description": "Convert an amount of money from one currency to another.",
        },
    ],
}
PASSAGES = "\n\n".join(" ".join([fact] * 30) for fact in ("Paris lies on the Seine.", "France has 18 regions."))
LLAMA_INDEX = {
    "messages": [
        {
            "role": "system",
            "content": "You are an expert Q&A system that is trusted around the world.\nAlways answer the query using "
            "the provided context information, and not prior knowledge.\nSome rules to follow:\n1. Never directly "
            "reference the given context in your answer.\n2. Avoid statements like 'Based on the context, ...' or "
            "'The context information ...' or anything along those lines.",
        },
        {
            "role": "user",
            "content": f"Context information is below.\n---------------------\n{PASSAGES}\n---------------------\n"
            "Given the context information and not prior knowledge, answer the query.\n"
            "Query: What is the capital of France?\nAnswer: ",
        },
    ],
    "model": "auto",
    "stream": False,
    "temperature": 0.1,
}
TEXT = "Paris, the capital of France, had 2,102,650 residents in January 2023."
EXTRACT = f"Extract the city and its population from this text: {TEXT}"
CAPITAL = {
    "properties": {
        "city": {"title": "City", "type": "string"},
        "population": {"title": "Population", "type": "integer"},
    },
    "required": ["city", "population"],
    "type": "object",
}
INSTRUCTOR = {
    "messages": [{"role": "user", "content": EXTRACT}],
    "model": "auto",
    "tool_choice": {"type": "function", "function": {"name": "Capital"}},
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "Capital",
                "description": "Correctly extracted `Capital` with all the required parameters with correct types",
                "parameters": CAPITAL,
            },
        }
    ],
}
HISTORY = {
    "model": "auto",
    "messages": [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "Prove that there are infinitely many primes."},
        {"role": "assistant", "content": "Take any finite list of primes, multiply them and add one."},
        {"role": "user", "content": "Thank you! What is the capital of Australia?"},
    ],
}
REQUESTS = {
    "langchain": (LANGCHAIN, WEATHER_QUESTION),
    "openai-agents": (OPENAI_AGENTS, WEATHER_QUESTION),
    "llama-index": (LLAMA_INDEX, "What is the capital of France?"),
    "instructor": (INSTRUCTOR, EXTRACT),
    "history": (HISTORY, "What is the capital of Australia?"),
}
each_request = pytest.mark.parametrize("name", REQUESTS)


def send(router, openai_server, body: dict) -> httpx2.Response:
    """Send a body like its client and return the answer."""
    is_response = "input" in body
    openai_server.enqueue(json_reply(response("gpt-4o") if is_response else completion("gpt-4o")))
    path = "/responses" if is_response else "/chat/completions"
    answer = httpx2.post(router.url + path, json=body, headers={"authorization": "Bearer sk-client"})
    assert answer.status_code == 200, answer.text
    return answer


@each_request
def test_a_request_of_a_real_client_is_routed_with_a_reason(router, openai_server, name):
    body, _ = REQUESTS[name]
    decision = httpx2.post(router.origin + "/router/decision", json=body).json()
    answer = send(router, openai_server, body)
    (sent,) = openai_server.received
    assert sent.json == {**body, "model": decision["model"]}  # nothing else was changed
    assert answer.headers["x-router-model"] == decision["model"]
    assert answer.headers["x-router-reason"] == decision["reason"]
    assert answer.headers["x-router-type"] == decision["question_type"]


@each_request
def test_the_last_question_of_a_real_client_decides(router, name):
    body, question = REQUESTS[name]
    assert httpx2.post(router.origin + "/router/decision", json=body).json()["asked"]["question"] == question


@each_request
def test_a_request_of_a_real_client_is_explained_in_the_terminal(name):
    body, question = REQUESTS[name]
    result = command("decide", "--request", "-", stdin=json.dumps(body), COLUMNS="200")
    assert parse_explanation(result)["question"] == question


@each_request
def test_the_record_and_the_page_show_the_question_as_read(router, openai_server, name):
    body, question = REQUESTS[name]
    asked_question = httpx2.post(router.origin + "/router/decision", json=body).json()["asked"]
    send(router, openai_server, body)
    (record,), response = router.records(), httpx2.get(router.origin + "/router/recent")
    (recent_request,) = response.json()["requests"]
    counts = {name: asked_question[name] for name in record["read_as"] if name != "question_characters"}
    assert record["read_as"] == recent_request["read_as"] == {"question_characters": len(question), **counts}
    assert recent_request["reason"] and recent_request["question_type"] and question not in response.text


@pytest.mark.parametrize("body", [LANGCHAIN, OPENAI_AGENTS])
def test_the_tool_that_fits_an_agents_question_is_read(router, body):
    question = httpx2.post(router.origin + "/router/decision", json=body).json()["asked"]
    assert (question["tools_offered"], question["tools_matching"], question["turn"]) == (2, 1, 1)


def test_an_agent_keeps_its_model_after_a_tool_has_answered(router):
    first = {**LANGCHAIN, "messages": LANGCHAIN["messages"][:2]}
    response = [httpx2.post(router.origin + "/router/decision", json=body).json() for body in (first, LANGCHAIN)]
    assert response[0]["asked"]["question"] == response[1]["asked"]["question"]
    assert response[0]["model"] == response[1]["model"]


def test_retrieved_passages_are_not_the_question(router):
    question = httpx2.post(router.origin + "/router/decision", json=LLAMA_INDEX).json()["asked"]
    assert question["material_characters"] > 1_000 and question["examples"] == 0


SYSTEM = "You are a senior software engineer. Answer technical questions accurately and concisely in 2-4 sentences."


@pytest.mark.parametrize(
    "question",
    [
        "What is a database index?",
        "Explain the CAP theorem in distributed systems.",
        "What is the difference between TCP and UDP?",
        "How does garbage collection work in Java?",
        "What is a race condition?",
        "Explain how TLS/SSL handshake works.",
    ],
)
def test_everyday_technical_questions_go_to_the_cheap_model(router, question):
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]
    with openai.OpenAI(base_url=router.url, api_key="x", max_retries=0) as client:
        response = client.chat.completions.with_raw_response.create(model="auto", messages=messages)
    assert response.headers["x-router-model"] == "gpt-4o-mini", dict(response.headers)


def test_a_tool_result_sent_as_a_user_turn_is_not_a_new_question(router):
    task = "A 54-year-old man has crushing chest pain and ST elevation in II, III and aVF. Which artery is occluded?"
    loop = [{"role": "user", "content": task}]
    for result in ("17 rows", '[{"id": 1, "name": "Oslo"}, {"id": 2}]', "Traceback: KeyError 'x'"):
        decision = httpx2.post(router.origin + "/router/decision", json={"model": "auto", "messages": loop}).json()
        assert (decision["model"], decision["asked"]["question"]) == ("gpt-4o", task)
        thought = {"role": "assistant", "content": "Thought: I look it up."}
        loop += [thought, {"role": "user", "content": f"Observation: {result}"}]

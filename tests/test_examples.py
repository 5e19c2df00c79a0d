"""The scripts of `examples/` are short, contain no addresses and keys, and run against a router.

Those whose client is not installed here are run by `make test-clients`.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import openai
import pytest
from fake_openai import completion, json_reply, stream_reply

FOLDER = Path(__file__).parent.parent / "examples"
CLIENTS = [path for path in sorted(FOLDER.glob("*.*")) if path.name != "simulated_openai.py"]
CHUNK = b'data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"Paris"},"finish_reason":null}]}\n\n'  # noqa: E501


def run(router, *command):
    environment = {**os.environ, "OPENAI_BASE_URL": router.url, "OPENAI_API_KEY": "anything"}
    result = subprocess.run([*map(str, command)], env=environment, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("path", CLIENTS, ids=lambda path: path.name)
def test_examples_are_short_and_read_address_and_key_from_the_environment(path):
    text = path.read_text()
    assert len(text.splitlines()) < 40
    assert not re.search(r"https?://|sk-|127\.0\.0\.1|localhost", text)
    assert "OPENAI_BASE_URL" in text and "OPENAI_API_KEY" in text


def test_each_example_is_run_by_a_test():
    listed = (FOLDER.parent / "tests" / "clients" / "run.py").read_text()
    assert [path.name for path in CLIENTS if f'"{path.name}"' not in listed] == ["curl.sh"]


def test_the_openai_client_reads_the_answering_model_and_streams(router, openai_server):
    openai_server.enqueue(json_reply(completion("gpt-4o-mini", "Paris.")), stream_reply(CHUNK, b"data: [DONE]\n\n"))
    result = run(router, sys.executable, FOLDER / "openai_python.py").splitlines()
    assert result == ["gpt-4o-mini because cheap_is_enough", "Paris.", "Paris"]
    assert [request["asked_model"] for request in router.records(2)] == ["auto", "auto-cost"]


def test_curl_gets_the_answer_and_the_decision(router, openai_server):
    openai_server.enqueue(json_reply(completion("gpt-4o-mini", "Paris.")))
    result = run(router, "bash", FOLDER / "curl.sh")
    assert "x-router-reason: cheap_is_enough" in result and '"Paris."' in result and '"likely_types"' in result
    assert len(openai_server.received) == 1  # a decision alone calls no model


def test_the_simulated_openai_of_the_tutorial_answers_and_is_marked_as_simulated(tmp_path):
    (tmp_path / "mine.jsonl").write_text('{"question": "What is 2 + 2?", "reference": 4, "check": "number"}\n')
    command = [sys.executable, str(FOLDER / "simulated_openai.py"), "mine.jsonl"]
    environment = {**os.environ, "PYTHONPATH": str(FOLDER.parent)}
    server = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        output = "".join(server.stdout.readline() for _ in range(3))
        assert output.startswith("SIMULATED")
        (address,) = re.findall(r"OPENAI_BASE_URL=(\S+)", output)
        with openai.OpenAI(base_url=address, api_key="simulated") as client:
            question = {"role": "user", "content": "What is 2 + 2?"}
            answer = client.chat.completions.create(model="gpt-4o", messages=[question])
            assert [model.id for model in client.models.list()] == ["gpt-4o", "gpt-4o-mini"]
        assert answer.choices[0].message.content in ("4", "I would rather not.")
    finally:
        server.terminate()
        server.communicate(timeout=10)

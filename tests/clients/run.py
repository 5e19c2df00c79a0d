"""Runs real clients against a fake OpenAI, directly and through the router, to find the router's own failures.

Run: make test-clients [CLIENTS="openai langchain"]. Where nginx is installed, the same checks are made through it as
well, as a proxy that changes nothing. Everything is installed into .clients/, which git ignores.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent.parent
HOME = PROJECT / ".clients"
PATH = os.environ.get("PATH", os.defpath) + ":/usr/sbin"


@dataclass(frozen=True)
class Client:
    """The packages of a client, and its script."""

    packages: tuple[str, ...]
    script: str
    shows: str = ""  # the package whose version is printed
    installer: str = "python"
    example: str = ""  # a file of examples/, run through the router


LANGCHAIN = ("langchain-openai", "langchain-tests", "pytest", "pytest-asyncio", "pytest-socket", "pytest-recording")
VERCEL = ("ai", "@ai-sdk/openai", "@ai-sdk/openai-compatible", "zod")
CLIENTS = {
    "openai": Client(("openai",), "openai_python.py", example="openai_python.py"),
    "openai-1.40": Client(("openai==1.40.0", "httpx<0.28"), "openai_python.py", "openai"),
    "openai-node": Client(("openai",), "openai_node.mjs", "openai", "node", "openai_node.mjs"),
    "vercel-ai": Client(VERCEL, "vercel_ai.mjs", "ai", "node", "vercel_ai.mjs"),
    "langchain": Client((*LANGCHAIN, "pytest-benchmark", "syrupy"), "langchain_standard.py", "langchain-openai"),
    "langchain-agent": Client(
        ("langchain", "langchain-openai"), "langchain_agent.py", "langchain", example="langchain_agent.py"
    ),
    "llama-index": Client(
        ("llama-index-llms-openai", "llama-index-llms-openai-like"),
        "llama_index_client.py",
        "llama-index-llms-openai",
        example="llamaindex_chat.py",
    ),
    "pydantic-ai": Client(
        ("pydantic-ai-slim[openai]",), "pydantic_ai_client.py", "pydantic-ai-slim", example="pydantic_ai_agent.py"
    ),
    "instructor": Client(("instructor",), "instructor_client.py"),
    "openai-agents": Client(("openai-agents",), "openai_agents_client.py", example="openai_agents.py"),
    "litellm": Client(("litellm", "mcp"), "litellm_client.py", example="litellm_sdk.py"),
    "llm": Client(("llm",), "shell.sh"),
    "curl": Client((), "shell.sh", installer=""),
}


def main() -> int:
    """Run the clients named on the command line, or all; the exit code is 1 if one fails only through the router."""
    names = sys.argv[1:] or list(CLIENTS)
    HOME.mkdir(exist_ok=True)
    failures = 0
    with ExitStack() as stack:
        direct = stack.enter_context(upstream())
        router = stack.enter_context(routed(direct))
        nginx = stack.enter_context(nginx_proxy(direct)) if shutil.which("nginx", path=PATH) else None
        sys.stdout.write("| Client | Version | Directly | nginx | Through the router |\n|---|---|---|---|---|\n")
        for name in names:
            client = CLIENTS[name]
            version = installed(name, client)
            direct_lines, routed_lines = run(name, client, direct, "gpt-4o"), run(name, client, router, "auto")
            nginx_score = score(run(name, client, nginx, "gpt-4o")) if nginx else "not run"
            router_failures = [line for line in routed_lines if not line.startswith("ok ") and line not in direct_lines]
            failures += len([line for line in router_failures if f"ok {check_name(line)}" in direct_lines])
            sys.stdout.write(
                f"| {name} | {version} | {score(direct_lines)} | {nginx_score} | {score(routed_lines)} |\n"
            )
            failed = run_example(name, client.example, router) if client.example else ""
            failures += bool(failed)
            for line in [*router_failures, *reasons(name), *([failed] if failed else [])]:
                sys.stderr.write(f"  {name}: {line}\n")
            sys.stdout.flush()
    return 1 if failures else 0


def check_name(line: str) -> str:
    """The name of the check in a line of a script's output."""
    return line.partition(" ")[2].partition(": ")[0]


def reasons(name: str) -> list[str]:
    """The reasons of the router's decisions, from the log of a client's script."""
    log = (HOME / f"{name}-auto.log").read_text()
    return [line for line in log.splitlines() if line.startswith("why ")]


def score(lines: list[str]) -> str:
    """The number of passed checks of all checks."""
    return f"{sum(line.startswith('ok ') for line in lines)} of {len(lines)}"


def free_port() -> int:
    """A free port."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def server(command: list[str], url: str, environment: dict[str, str]) -> Iterator[str]:
    """Run a server process; yields when it answers at `url`."""
    process = subprocess.Popen(command, env={**clean_environment(), **environment}, cwd=PROJECT, stdout=sys.stderr)
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(url, timeout=2)
                break
            except OSError:
                time.sleep(0.1)
        else:
            raise SystemExit(f"{' '.join(command)} did not start")
        yield url
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def upstream() -> Iterator[str]:
    """Run the fake OpenAI; yields its base URL."""
    port = free_port()
    base = f"http://127.0.0.1:{port}/v1"
    with server([sys.executable, str(HERE / "upstream.py"), str(port)], base + "/models", {}):
        yield base


@contextmanager
def routed(base_url: str, **settings: str) -> Iterator[str]:
    """Run the router in front of an upstream with its command; yields its base URL."""
    port = free_port()
    home = tempfile.mkdtemp(prefix="router-clients-")
    environment = {"OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": "sk-upstream", "ROUTER_HOME": home, **settings}
    command = [sys.executable, "-m", "router", "serve", "--port", str(port)]
    try:
        with server(command, f"http://127.0.0.1:{port}/ready", environment):
            yield f"http://127.0.0.1:{port}/v1"
    finally:
        shutil.rmtree(home, ignore_errors=True)


NGINX = """daemon off; pid {home}/pid; error_log {home}/error.log; worker_processes 1; events {{}}
http {{
  access_log off; client_max_body_size 0;
  client_body_temp_path {home}/body; proxy_temp_path {home}/proxy;
  fastcgi_temp_path {home}/f; uwsgi_temp_path {home}/u; scgi_temp_path {home}/s;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass {origin}; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; proxy_request_buffering off;
    }}
  }}
}}
"""


@contextmanager
def nginx_proxy(base_url: str) -> Iterator[str]:
    """Run nginx as an unchanged proxy in front of an upstream; yields its base URL."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="nginx-clients-") as home:
        config = Path(home) / "nginx.conf"
        config.write_text(NGINX.format(home=home, port=port, origin=base_url.removesuffix("/v1")))
        base = f"http://127.0.0.1:{port}/v1"
        binary = shutil.which("nginx", path=PATH) or "nginx"
        with server([binary, "-c", str(config), "-e", f"{home}/error.log"], base + "/models", {}):
            yield base


def clean_environment() -> dict[str, str]:
    """The environment without settings of the router, clients, MLflow and pytest."""
    prefixes = ("ROUTER_", "OPENAI_", "MLFLOW_", "PYTEST_")
    return {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}


def installed(name: str, client: Client) -> str:
    """Install a client if it is missing; return its version."""
    folder = HOME / ("node" if client.installer == "node" else name)
    package = client.shows or name
    if client.installer == "node":
        if not all((folder / "node_modules" / package).exists() for package in client.packages):
            folder.mkdir(exist_ok=True)
            subprocess.run(["npm", "install", "--silent", *client.packages], cwd=folder, check=True)
        version_match = re.search(
            r'"version": "([^"]+)"', (folder / "node_modules" / package / "package.json").read_text()
        )
        return version_match[1] if version_match else "?"
    if client.installer == "python":
        python = folder / "bin" / "python"
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
            pip = [sys.executable, "-m", "uv", "pip", "install", "-q", "--python", str(python)]
            subprocess.run([*pip, *client.packages], check=True)
        code = f"import importlib.metadata as m; print(m.version({package!r}))"
        return subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    return subprocess.run([name, "--version"], capture_output=True, text=True, check=True).stdout.split()[1]


def run_example(name: str, example: str, base_url: str) -> str:
    """Run a script of examples/ through the router; what is wrong, or nothing."""
    environment = {"OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": "sk-client"}
    script = PROJECT / "examples" / example
    if example.endswith(".mjs"):
        command = ["node", shutil.copy(script, HOME / "node" / f"example_{example}")]  # where its packages are
    else:
        command = [str(HOME / name / "bin" / "python"), str(script)]
    result = subprocess.run(
        command, env={**clean_environment(), **environment}, capture_output=True, text=True, timeout=300
    )
    is_right = result.returncode == 0 and "Paris" in result.stdout
    return "" if is_right else f"FAIL examples/{example}: {(result.stdout + result.stderr)[-500:]}"


def run(name: str, client: Client, base_url: str, model: str) -> list[str]:
    """Run a client's script; one line a check."""
    folder = HOME / name
    environment = {"OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": "sk-client", "CLIENT_MODEL": model}
    environment |= {"OPENAI_AGENTS_DISABLE_TRACING": "1"}
    folder_of_run = HERE
    if client.script.endswith(".sh"):
        home = tempfile.mkdtemp()
        environment |= {"LLM": str(folder / "bin" / "llm"), "LLM_USER_PATH": home}
        command = ["bash", str(HERE / client.script), name]
    elif client.script.endswith(".mjs"):
        folder_of_run = HOME / "node"
        shutil.copy(HERE / client.script, folder_of_run)
        command = ["node", client.script]
    elif name == "langchain":
        command = [str(folder / "bin" / "python"), "-m", "pytest", "-rA", "-q", "-p", "no:cacheprovider"]
        shutil.copy(HERE / client.script, folder)  # away from the tests of this project
        command += ["-c", os.devnull, "-o", "asyncio_mode=auto", "--rootdir", str(folder), client.script]
        folder_of_run = folder
    else:
        command = [str(folder / "bin" / "python"), str(HERE / client.script)]
    completed = subprocess.run(
        command,
        cwd=folder_of_run,
        env={**clean_environment(), **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )
    (HOME / f"{name}-{model}.log").write_text(completed.stdout + completed.stderr)
    if name == "langchain":
        results = re.findall(r"^(PASSED|FAILED|ERROR) \S+::(\S+)", completed.stdout, re.MULTILINE)
        return [f"{'ok' if result == 'PASSED' else 'FAIL'} {test}" for result, test in results]
    lines = [line for line in completed.stdout.splitlines() if line.startswith(("ok ", "FAIL "))]
    return lines or [f"FAIL everything: {completed.stderr[-300:]}"]


if __name__ == "__main__":
    sys.exit(main())

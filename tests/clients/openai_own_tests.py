"""Runs openai-python's own API tests, directly against a fake OpenAI and through the router.

Run: make test-clients. The tests are in the package's source, which is fetched into .clients/openai-own.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

from run import HERE, HOME, clean_environment, free_port, routed, server

FOLDER = HOME / "openai-own"
PACKAGES = ("pytest", "pytest-asyncio", "inline-snapshot", "rich", "trio", "Pillow", "botocore", "azure-identity")
# model names of the tests, routed as for a client that cannot be changed
ROUTED = "gpt-6-astra,gpt-5.4,gpt-4o,gpt-3.5-turbo-instruct,string"


def main() -> int:
    """Run the tests; the exit code is 1 if a test that passes directly fails through the router."""
    source = fetch_source()
    port = free_port()
    base = f"http://127.0.0.1:{port}/v1"
    with server([sys.executable, str(HERE / "answering_upstream.py"), str(port)], base + "/models", {}):
        direct_results = run(source, base)
        with routed(base) as router:
            named_results = run(source, router)
        with routed(base, ROUTER_ROUTED_MODELS=ROUTED) as router:
            routed_results = run(source, router)
    for name, results in (("directly", direct_results), ("by name", named_results), ("routed", routed_results)):
        sys.stdout.write(f"openai-own {name}: {sum(results.values())} of {len(results)}\n")
    regressions = sorted(
        name for name, ok in direct_results.items() if ok and not (named_results.get(name) and routed_results.get(name))
    )
    sys.stderr.write("".join(f"  only through the router: {name}\n" for name in regressions))
    return 1 if regressions or not sum(direct_results.values()) else 0


def fetch_source() -> Path:
    """Fetch the source of the locked version, and create a test environment."""
    locked_version = version("openai")
    source = FOLDER / f"openai-{locked_version}"
    if not source.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", "openai"]
        subprocess.run([*pip, "-d", str(FOLDER), f"openai=={locked_version}"], check=True)
        with tarfile.open(source.with_name(source.name + ".tar.gz")) as archive:
            archive.extractall(FOLDER, filter="data")
    python = FOLDER / "venv" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(FOLDER / "venv")], check=True)
        pip = [sys.executable, "-m", "uv", "pip", "install", "-q", "--python", str(python)]
        extras = "aiohttp,realtime,datalib,voice-helpers,bedrock"
        subprocess.run([*pip, f"openai[{extras}]=={locked_version}", *PACKAGES], check=True)
    return source


def run(source: Path, base_url: str) -> dict[str, bool]:
    """Run the tests; return whether each passed, by name."""
    command = [str(FOLDER / "venv" / "bin" / "python"), "-m", "pytest", "tests/api_resources", "-v"]
    command += ["-o", "addopts=", "-p", "no:cacheprovider", "-p", "answers_by_type", "--tb=line"]
    environment = {"TEST_API_BASE_URL": base_url, "DEFER_PYDANTIC_BUILD": "false", "PYTHONPATH": str(HERE)}
    completed = subprocess.run(
        command, cwd=source, env={**clean_environment(), **environment}, capture_output=True, text=True
    )
    (FOLDER / f"{base_url.split(':')[2].split('/')[0]}.log").write_text(completed.stdout + completed.stderr)
    outcomes = re.findall(r"^(\S+::\S+) (PASSED|FAILED|ERROR)", completed.stdout, re.MULTILINE)
    return {name: result == "PASSED" for name, result in outcomes}


if __name__ == "__main__":
    sys.exit(main())

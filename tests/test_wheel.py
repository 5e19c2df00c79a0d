"""The wheel is built, installed like by `pip install`, and run from a folder outside the project."""

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import tomllib
import zipfile
from pathlib import Path

import httpx2
import pytest
from fake_models import FakeModels
from servers import free_port

from calibration.questions.questions import Question, read
from router.policy.distribution import DATA, SHIPPED
from router.policy.prediction import IS_COMPILED
from router.serving.policy import read_policy

ROOT = Path(__file__).parent.parent
HALVES = ("router", "calibration")
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
QUESTION = "A farmer has 12 cows, buys 7 more and sells 4. How many are left?"


def output(*command, cwd, **environment):
    result = subprocess.run(
        [*map(str, command)], cwd=cwd, env=clean(**environment), capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def clean(**added):
    """The environment without settings, and without a path to the checkout."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("ROUTER_", "OPENAI_", "MLFLOW_", "PYTHONPATH"))
    }
    return {**environment, "COLUMNS": "160", **added}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from the source distribution of a copy of the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns("__pycache__", "*.so")
    for name in (*HALVES, "data"):
        shutil.copytree(ROOT / name, folder / "source" / name, ignore=ignored)
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source")
    build = ("-m", "uv", "build", "--offline", "--no-cache", "--no-build-isolation", "--python", sys.executable)
    output(sys.executable, *build, "--out-dir", folder, ".", cwd=folder / "source")
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def commands(wheel, tmp_path_factory):
    """The folder of the console scripts in an environment with the wheel and this environment's dependencies."""
    folder = tmp_path_factory.mktemp("installed")
    output(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    scheme = {"base": str(folder), "platbase": str(folder)}
    packages = Path(sysconfig.get_path("purelib", "venv", scheme))
    # a path in a .pth file is searched for modules but not for other .pth files, such as an editable install's
    folders = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (packages / "dependencies.pth").write_text("".join(f"{place}\n" for place in folders))
    pip = (sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install", "-q", "--no-index")
    output(*pip, "--no-deps", "--disable-pip-version-check", wheel, cwd=folder)
    return folder / "bin"


def test_the_wheel_contains_every_module_and_data_file(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {
        str(path.relative_to(ROOT)) for package in ("router", "calibration") for path in (ROOT / package).rglob("*.py")
    }
    assert modules <= names
    read_by_programs = {
        "prices.json",
        "models.json",
        "types.json",
        "questions.jsonl",
        "policy/policy.json",
        "policy/weights.npz",
        "policy/answers.json",
        "policy/answers.npz",
    }
    read_by_programs |= {f"requests/{path.name}" for path in (DATA / "requests").iterdir()}
    assert {name for name in names if "_data" in name} == {f"router/_data/{name}" for name in read_by_programs}
    compiled = any(name.startswith("router/policy/prediction_kernel.") and name.endswith(".so") for name in names)
    assert compiled or not IS_COMPILED  # where this environment compiles, so does the build
    assert {name.partition("/")[0] for name in names} == {
        *HALVES,
        f"calibrated_router-{VERSION}.dist-info",
    }


def test_an_installed_router_serves_its_policy(commands, tmp_path, create_store):
    create_store(tmp_path / ".router")
    port = free_port()
    command = [str(commands / "router"), "serve", "--port", str(port)]
    process = subprocess.Popen(command, cwd=tmp_path, env=clean(), stderr=subprocess.PIPE, text=True)
    try:
        wait_for(f"http://127.0.0.1:{port}/ready", process)
        body = {"model": "auto", "messages": [{"role": "user", "content": QUESTION}]}
        answer = httpx2.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=body, timeout=30)
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-router-policy"] == read_policy(SHIPPED).version
        assert answer.headers["x-router-type"] == "math/grade-school"
        assert httpx2.get(f"http://127.0.0.1:{port}/", timeout=30).status_code == 200
    finally:
        process.send_signal(signal.SIGTERM)
        log = process.communicate(timeout=60)[1]
    assert process.returncode == 0, log


def wait_for(url, process):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            httpx2.get(url, timeout=5)
            return
        except httpx2.TransportError:
            time.sleep(0.1)
    process.kill()
    raise AssertionError(process.communicate()[1])


def test_an_installed_router_decides(commands, tmp_path):
    assert "math/grade-school" in output(commands / "router", "decide", QUESTION, cwd=tmp_path)


def test_init_and_doctor_work_in_an_installed_router(commands, tmp_path):
    output(commands / "router", "init", cwd=tmp_path)
    assert "#openai_api_key" in (tmp_path / "router.toml").read_text()
    result = output(commands / "router", "doctor", cwd=tmp_path)
    warnings = 1 if IS_COMPILED else 2
    assert "read from router.toml" in result and f"Problems: 0. Warnings: {warnings}." in result


def test_installed_programs_print_the_version_of_the_wheel(commands, tmp_path):
    for name in HALVES:
        assert output(commands / name, "--version", cwd=tmp_path).split() == ["calibrated-router", VERSION]


def test_a_checkout_prints_its_own_version(tmp_path):
    shutil.copytree(ROOT / "router", tmp_path / "router", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "calibrated-router"\nversion = "9.8.7"\n')
    result = output(sys.executable, "-m", "router", "--version", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert result == "calibrated-router 9.8.7\n"


def test_an_installed_calibration_calibrates(commands, tmp_path, create_store):
    create_store(tmp_path / ".router")
    rows = [
        {"id": f"s{n}", "question_type": "sums", "question": f"{n} + {n}?", "reference": 2 * n, "check": "number"}
        for n in range(20)
    ]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    questions: list[Question] = read(str(tmp_path / "sums.jsonl"))
    with FakeModels(questions, lambda model, _: 1.0 if model == "gpt-4o" else 0.5) as fake:
        upstream = {"OPENAI_BASE_URL": fake.base_url, "OPENAI_API_KEY": "sk-of-the-test"}
        run = (commands / "calibration", "run", "--yes", "--questions", "sums.jsonl")
        result = output(*run, cwd=tmp_path, **upstream)
    assert "Report:" in result and (tmp_path / ".router" / "calibration" / "report.html").is_file()
    assert len(fake.successful_calls("answer")) == 40


def test_an_installed_calibration_finds_the_shipped_questions(commands, tmp_path):
    result = subprocess.run(
        [commands / "calibration", "run"],
        cwd=tmp_path,
        env=clean(OPENAI_BASE_URL="http://127.0.0.1:9/v1"),
        input="n\n",
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1 and "Continue?" in result.stdout, result.stdout + result.stderr
    assert not (tmp_path / "data").exists()

"""The files of `deploy/`: they name existing settings and metrics, their timeouts fit, and they run unprivileged."""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
import typer
import yaml
from prometheus_client.parser import text_string_to_metric_families
from servers import folder_for_everybody

from calibration.__main__ import app as calibration
from router.exporter.process import DRAIN_SECONDS
from router.server import KEEP_ALIVE_SECONDS
from router.settings import Settings, load

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
VALUES = yaml.safe_load((DEPLOY / "chart" / "values.yaml").read_text())
SETTINGS = {
    (str(field.validation_alias) if field.validation_alias else f"router_{name}").upper()
    for name, field in Settings.model_fields.items()
}
OF_OTHERS = {  # the program that reads each
    "sentinel": {*SETTINGS, "SHARE", "USD_A_DAY"},  # of its command in compose.yaml
    "mlflow": {
        *("MLFLOW_BACKEND_STORE_URI", "MLFLOW_ARTIFACTS_DESTINATION", "MLFLOW_SERVER_ALLOWED_HOSTS"),
        *("MLFLOW_DISABLE_TELEMETRY", "HOME"),
    },
    "postgres": {"POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB"},
    "redis": {"REDIS_PASSWORD"},  # of the entry point in compose.yaml
    "prometheus": {"ROUTER_METRICS_KEY"},  # of the entry point in compose.yaml
    "grafana": {
        *("GF_SECURITY_ADMIN_PASSWORD", "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH", "GF_PLUGINS_PREINSTALL_DISABLED"),
        *("GF_ANALYTICS_REPORTING_ENABLED", "GF_ANALYTICS_CHECK_FOR_UPDATES"),
    },
}
LONGEST_END_SECONDS = load().timeouts.shutdown + DRAIN_SECONDS + 4  # requests, the export, and two signals
TEMPLATES = {path.name: path.read_text() for path in (DEPLOY / "chart" / "templates").iterdir()}


def seconds(text: str) -> int:
    """The seconds of `60s`.

    >>> seconds("60s")
    60
    """
    return int(text.removesuffix("s"))


def nginx(directive: str) -> list[str]:
    return re.findall(rf"^ *{directive} ([^;]+);", (DEPLOY / "nginx.conf").read_text(), re.MULTILINE)


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(DEPLOY.rglob("*.y*ml")) if "templates" not in path.parts],
    ids=lambda path: str(path.relative_to(DEPLOY)),
)
def test_yaml_files_parse(path):
    assert yaml.safe_load(path.read_text())


def test_alert_rules_query_existing_metrics(router):
    known = set()
    for family in text_string_to_metric_families(httpx2.get(router.origin + "/metrics").text):
        ends = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(family.type, [""])
        known |= {family.name + end for end in ends}
    alerts = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yaml").read_text())
    rules = [rule for group in alerts["groups"] for rule in group["rules"]]
    assert len(rules) >= 10
    for rule in rules:
        named = set(re.findall(r"\b(?:router|gen_ai)_\w+", re.sub(r'"[^"]*"', "", rule["expr"])))
        assert named <= known, rule["alert"]
        assert named or rule["alert"] == "RouterDown"


def test_the_autoscaler_scales_by_existing_metrics(router):
    (named,) = re.findall(r"metric: \{name: (\w+)\}", TEMPLATES["autoscaling.yaml"])
    assert f"# TYPE {named} gauge" in httpx2.get(router.origin + "/metrics").text


def test_every_environment_variable_of_a_container_is_read():
    for name, service in SERVICES.items():
        assert set(service.get("environment", {})) <= OF_OTHERS.get(name, SETTINGS), name


def environment_of(service: str) -> dict[str, str]:
    """The environment that compose.yaml gives a service, with `.env.example` filled in."""
    filled = dict(re.findall(r"^([A-Z_]+)=(.*)$", (DEPLOY / ".env.example").read_text(), re.MULTILINE))

    def value_of(variable: re.Match[str]) -> str:
        name, operator, rest = variable.groups()
        return filled.get(name) or ("0123456789abcdef" if operator == ":?" else rest)

    given = SERVICES[service]["environment"].items()
    variable = re.compile(r"\$\{([A-Z_]+)(:[?-])([^}]*)\}")
    return {name: variable.sub(value_of, value) for name, value in given if value is not None}


def test_the_environment_of_compose_is_valid_and_names_mounted_folders(monkeypatch):
    for name, value in environment_of("router-1").items():
        monkeypatch.setenv(name, value)
    settings = load()
    mounted = {Path(volume.split(":")[1]) for volume in SERVICES["router-1"]["volumes"]}
    assert {settings.home, settings.keys_path.parent} == mounted
    assert settings.state is not None and settings.usage_database is not None and settings.metrics_key is not None
    assert settings.mlflow_tracking_uri == "http://mlflow:5000" and "5000" in SERVICES["mlflow"]["command"]
    for url, service in ((settings.usage_url, "postgres"), (settings.state.get_secret_value(), "redis")):
        assert urlsplit(url).hostname == service and urlsplit(url).password == "0123456789abcdef"


def test_the_settings_in_the_values_of_the_chart_are_valid(monkeypatch):
    for name, value in VALUES["settings"].items():
        monkeypatch.setenv(name, value)
    assert load().record_content == VALUES["settings"]["ROUTER_RECORD_CONTENT"]


def test_all_parts_use_the_ports_on_which_others_listen():
    port = in_dockerfile("CMD")[-1]
    assert f"/dev/tcp/127.0.0.1/{port} " in in_dockerfile(r"HEALTHCHECK .*CMD")[-1]
    routers = [f"{name}:{port}" for name in SERVICES if name.startswith("router-")]
    servers = [server.split()[0] for server in nginx("server") if server[0] != "{"]
    assert servers == routers * 2  # of the API, and of the page
    prometheus = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    assert prometheus["scrape_configs"][0]["static_configs"][0]["targets"] == routers
    assert re.findall(r"containerPort: (\d+)", TEMPLATES["statefulset.yaml"]) == [port]
    (listen,) = nginx("listen")
    assert SERVICES["nginx"]["ports"][0].endswith(f":{listen.split()[0]}")
    assert set(VALUES["networkPolicy"]["egressPorts"]) >= {443, 5000, 5432, 6379}


def test_the_environment_of_the_chart_consists_of_settings():
    named = {name for text in TEMPLATES.values() for name in re.findall(r"- name: ([A-Z_]+)\b", text)}
    assert {"OPENAI_API_KEY", "ROUTER_API_KEYS", "ROUTER_HOME"} <= named
    assert named | set(VALUES["settings"]) <= SETTINGS


def test_every_container_is_hardened_and_has_a_health_check():
    for name, service in SERVICES.items():
        assert service["read_only"] and service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["restart"] == ("no" if name == "calibration" else "unless-stopped"), name
        assert service["user"].split(":")[0] not in ("0", "root"), name
        assert "healthcheck" in service or name.startswith("router-"), name  # they use the health check of the image
        others = re.sub(r"calibrated-router(-proxy)?:latest", "", service["image"])
        assert not re.search(r":latest\b", others), name


def test_each_router_has_its_own_journal_and_all_share_the_keys():
    routers = SERVICES["router-1"], SERVICES["router-2"]
    mounted = [dict(reversed(volume.split(":")) for volume in router["volumes"]) for router in routers]
    assert len({volumes["/home/router/.router"] for volumes in mounted}) == 2
    assert len({volumes["/home/router/keys"] for volumes in mounted}) == 1
    assert {router["environment"]["ROUTER_KEYS_FILE"] for router in routers} == {"/home/router/keys/keys.json"}


def test_mounted_files_exist():
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            if volume.startswith("."):
                assert (DEPLOY / volume.split(":")[0]).is_file(), volume


def test_the_example_has_every_variable_of_compose():
    example = (DEPLOY / ".env.example").read_text()
    for name in re.findall(r"\$\{([A-Z_]+):[?]", (DEPLOY / "compose.yaml").read_text()):
        assert re.search(rf"^{name}=", example, re.MULTILINE), name


def test_the_stop_timeout_is_longer_than_the_shutdown():
    unit = (DEPLOY / "router.service").read_text()
    assert float(re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)[0]) > LONGEST_END_SECONDS
    assert seconds(SERVICES["router-1"]["stop_grace_period"]) > LONGEST_END_SECONDS
    (pause,) = re.findall(r'command: \[sleep, "(\d+)"\]', TEMPLATES["statefulset.yaml"])
    assert VALUES["terminationGracePeriodSeconds"] - int(pause) > LONGEST_END_SECONDS


def test_the_load_balancer_has_the_timeouts_and_sizes_of_the_router():
    settings = load()
    assert nginx("client_max_body_size") == [f"{settings.max_body_bytes // 2**20}m"]
    (longest,) = nginx("proxy_read_timeout")
    assert seconds(longest) > settings.timeouts.first_byte + settings.timeouts.retries
    assert seconds(nginx("keepalive_timeout")[0]) < KEEP_ALIVE_SECONDS  # of idle connections to routers
    assert nginx("proxy_buffering") == ["off"]


def test_the_memory_limit_exceeds_the_memory_budget():
    budget = int(SERVICES["router-1"]["environment"]["ROUTER_MEMORY_BUDGET_MB"])
    assert int(SERVICES["router-1"]["mem_limit"].removesuffix("m")) >= budget + 600
    limit = VALUES["resources"]["limits"]["memory"]
    assert int(limit.removesuffix("Mi")) >= int(VALUES["settings"]["ROUTER_MEMORY_BUDGET_MB"]) + 600


def test_the_recalibration_uses_existing_options():
    commands = typer.main.get_command(calibration).commands
    compose = (DEPLOY / "compose.yaml").read_text()
    templates = [
        *(("recalibration.yaml", name) for name in ("from-traces", "run", "promote")),
        ("sentinel.yaml", "watch"),
    ]
    for template, command in (*templates, ("", "watch")):
        text = TEMPLATES[template] if template else compose
        (arguments,) = re.findall(rf"python -m calibration {command}\b([^|\n]*)", text)
        known = {option for parameter in commands[command].params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", arguments)) <= known
        assert command == "promote" or "--" in arguments


def test_the_chart_renders_if_helm_is_installed(tmp_path):
    helm = os.environ.get("HELM") or shutil.which("helm")
    if helm is None:
        pytest.skip("there is no helm on this machine")
    values = {
        "secret": {"name": "keys"},
        "settings": {"MLFLOW_TRACKING_URI": "http://mlflow:5000"},
        **{name: {"enabled": True} for name in ("autoscaling", "serviceMonitor", "recalibration", "sentinel")},
    }
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(values))
    rendered = subprocess.run(
        [helm, "template", "r", DEPLOY / "chart", "--kube-version", "1.30.0", "--values", tmp_path / "values.yaml"],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
    ).stdout
    manifests = [manifest for manifest in yaml.safe_load_all(rendered) if manifest]
    kinds = {manifest["kind"]: manifest for manifest in manifests}
    assert {"StatefulSet", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy"} <= set(kinds)
    assert {"ServiceMonitor", "CronJob"} <= set(kinds)
    (container,) = kinds["StatefulSet"]["spec"]["template"]["spec"]["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    jobs = [
        manifest["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        for manifest in manifests
        if manifest["kind"] == "CronJob"
    ]
    assert len(jobs) == 2
    for job in jobs:
        subprocess.run(["bash", "-n"], input=job["containers"][0]["args"][0], text=True, check=True)


def in_dockerfile(instruction: str) -> list[str]:
    """The words of an instruction's command in the Dockerfile."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", "")
    (command,) = re.findall(rf"^{instruction} *(\[.*\])$", text, re.MULTILINE)
    return json.loads(command)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that other users can read."""
    with folder_for_everybody() as manifests:
        yield manifests


@pytest.fixture
def unprivileged() -> list[str]:
    """The command prefix that runs Python as an unprivileged user."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    if shutil.which("setpriv") is None:
        pytest.skip("there is no setpriv on this machine")
    user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs", "--bounding-set=-all"]
    user += ["env"]  # setpriv looks its program up with root's rights
    same = "/usr/bin/python{}.{}".format(*sys.version_info)  # if the tests' interpreter is in root's own folder
    packages = sysconfig.get_path("purelib")
    for python in (sys.executable, same):
        tried = [*user, python, "-c", "import uvloop"]
        environment = {"PYTHONPATH": packages, "PATH": "/usr/bin:/bin"}
        with contextlib.suppress(OSError):
            if subprocess.run(tried, env=environment, cwd="/", capture_output=True).returncode == 0:
                return [*user, python]
    pytest.skip("no Python of this version can be read by other users")


@pytest.mark.slow
def test_the_command_of_the_image_runs_unprivileged_in_a_read_only_tree(unprivileged, folder):
    tree, volume, scratch = (folder / name for name in ("app", "volume", "tmp"))
    for part in ("router", "calibration", "data"):
        shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
    files = {path: path.stat().st_mtime_ns for path in tree.rglob("*")}
    for path in (tree, *files):
        path.chmod(path.stat().st_mode & ~0o222)
    scratch.mkdir()
    scratch.chmod(0o1777)
    volume.mkdir()
    os.chown(volume, 0, 65534)  # as Kubernetes mounts a volume with fsGroup: root owns the folder
    volume.chmod(0o2775)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    command = in_dockerfile("CMD")
    assert command[0] == "python" and command[-1] == "8000"
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": "/nonexistent",
        "TMPDIR": str(scratch),
        "PYTHONPATH": f"{tree}:{sysconfig.get_path('purelib')}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "ROUTER_HOME": str(volume / "home"),
        "ROUTER_API_KEYS": "rk-of-the-tests-1",
    }
    log = folder / "log"
    with log.open("wb") as log_file:
        server = subprocess.Popen(
            [*unprivileged, *command[1:-1], port], cwd=tree, env=environment, stdout=log_file, stderr=log_file
        )
    try:
        origin = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(httpx2.TransportError):
                if httpx2.get(origin + "/ready").status_code == 200:
                    break
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        check = [word.replace("8000", port) for word in in_dockerfile(r"HEALTHCHECK .*CMD")]
        assert subprocess.run(check, capture_output=True).returncode == 0
        answer = httpx2.post(
            origin + "/v1/chat/completions",
            headers={"authorization": "Bearer rk-of-the-tests-1"},
            json={"model": "auto", "messages": [{"role": "user", "content": "Tom has 3 apples and buys 5. How many?"}]},
            timeout=30,
        )
        assert answer.status_code == 200 and answer.headers["x-router-reason"]
        server.terminate()
        assert server.wait(LONGEST_END_SECONDS) == 0, log.read_text()
    finally:
        server.kill()
        server.wait()
    assert list((volume / "home" / "journal").glob("*.jsonl"))
    assert {path: path.stat().st_mtime_ns for path in tree.rglob("*")} == files
    assert "Traceback" not in log.read_text()

"""Calibrations in MLflow: the content of their runs, and their policies as versions of a registered model."""

from __future__ import annotations

import gzip
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibration.comparison.tradeoffs import ALL, ModelSummary
from calibration.outcomes import Outcome, read_outcomes, write_outcomes
from calibration.pipeline.calibration import Calibration
from calibration.policies import read_policy, write_policy
from calibration.reporting.page import format_html
from calibration.reporting.report import format_csv
from calibration.reporting.summary import describe_spending, find_row
from router.policy.document import CHAMPION, Policy, PolicyError
from router.policy.document import REGISTERED_MODEL as MODEL

CHALLENGER = "challenger"
POLICY, OUTCOMES = "policy", "outcomes.jsonl.gz"


class RegistryError(RuntimeError):
    """The registry lacks a version or report. The message says what to do."""


@dataclass(frozen=True, slots=True)
class Version:
    """A policy in the registry, with its outcomes."""

    number: str
    policy: Policy
    outcomes: list[Outcome]
    seed: int


def log_calibration(calibration: Calibration, files: Sequence[Path] = ()) -> None:
    """Log the report, tables, metrics, policy and additional `files` to the runs of a calibration."""
    import mlflow

    client = mlflow.MlflowClient()
    for model, run in calibration.runs.models.items():
        for name, value in _metrics(find_row(calibration.summaries, ALL, model)).items():
            client.log_metric(run, name, value)
        client.set_tag(run, "traces", str(calibration.trace_counts[model]))
    parent = calibration.runs.parent
    client.set_tag(parent, "verdict", calibration.verdict.headline)
    client.set_tag(
        parent, "mlflow.note.content", "\n\n".join([*calibration.verdict.reasons, describe_spending(calibration)])
    )
    client.log_metric(parent, "questions", calibration.n)
    client.log_metric(parent, "unanswered", len(calibration.unanswered))
    client.log_metric(parent, "unjudged", len(calibration.unjudged))
    client.log_metric(parent, "saving_per_1000_usd", calibration.verdict.saving_per_1000_usd)
    client.log_metric(parent, "judge/kept_cost_usd", calibration.judge_spending[1])
    for purpose in ("answers", "judge"):
        client.log_metric(parent, f"{purpose}/cost_usd", calibration.meter.spent_usd(purpose))
        usages = [usage for (p, _), usage in calibration.meter.usage.items() if p == purpose]
        client.log_metric(parent, f"{purpose}/input_tokens", sum(usage.input_tokens for usage in usages))
        client.log_metric(parent, f"{purpose}/output_tokens", sum(usage.output_tokens for usage in usages))
    client.log_table(parent, {"outcome": [json.dumps(row) for row in _table(calibration)]}, "outcomes.json")
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        (here / "report.html").write_text(format_html(calibration), encoding="utf-8")
        (here / "comparison.csv").write_text(format_csv(calibration), encoding="utf-8")
        write_outcomes(calibration.outcomes, here / OUTCOMES)
        if calibration.policy is not None:
            write_policy(calibration.policy, here / POLICY)
        client.log_artifacts(parent, folder)
    for path in files:
        client.log_artifact(parent, str(path))


def _metrics(row: ModelSummary) -> Mapping[str, float]:
    """The metrics of one model. `correctness` and `completeness` follow the names of MLflow's scorers."""
    metrics = {
        "n": row.n,
        "score/mean": row.score.estimate,
        "input_tokens": row.input_tokens,
        "output_tokens": row.output_tokens,
        "total_tokens": row.total_tokens,
        "cost_usd": row.cost_usd,
        "cost_per_correct_pct": row.cost_per_correct_pct,
        "cost_per_correct_answer_usd": row.cost_per_correct_answer_usd,
    }
    if row.correctness:
        metrics["correctness/mean"] = row.correctness.estimate
    if row.completeness:
        metrics["completeness/mean"] = row.completeness.estimate
    return metrics


def _table(calibration: Calibration) -> list[dict[str, Any]]:
    return [
        {"id": o.id, "type": o.question_type, "scores": {model: result.score for model, result in o.results.items()}}
        for o in calibration.outcomes
    ]


def register(calibration: Calibration, seed: int) -> str | None:
    """Register the policy of a calibration as the challenger; return its version number, or None without a policy."""
    if calibration.policy is None:
        return None
    headline, reasons = calibration.verdict.headline, " ".join(calibration.verdict.reasons)
    return _create_challenger(calibration.runs.parent, calibration.policy, headline, reasons, seed)


def _create_challenger(run_id: str, policy: Policy, headline: str, reasons: str, seed: int) -> str:
    """Register the policy among the artifacts of a run as the newest version and challenger; return its number."""
    import mlflow
    from mlflow.exceptions import MlflowException

    client = mlflow.MlflowClient()
    try:
        client.create_registered_model(
            MODEL, description="Policies of the router. The alias `champion` marks the one that serves."
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    version = client.create_model_version(
        MODEL,
        source=f"{client.get_run(run_id).info.artifact_uri}/{POLICY}",
        run_id=run_id,
        tags={"policy_version": policy.version, "verdict": headline, "seed": str(seed)},
        description=reasons,
    )
    client.set_registered_model_alias(MODEL, CHALLENGER, version.version)
    return str(version.version)


def register_policy(
    experiment_id: str, name: str, policy: Policy, outcomes: Sequence[Outcome], headline: str, seed: int
) -> tuple[str, Policy]:
    """Store a policy and its outcomes in a new run, and register the policy as the challenger.

    Returns:
        The version number, and the policy as read back, with the version identifier of its content.
    """
    import mlflow

    client = mlflow.MlflowClient()
    run = client.create_run(experiment_id, run_name=name)
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        write_outcomes(outcomes, here / OUTCOMES)
        write_policy(policy, here / POLICY)
        stored = read_policy(here / POLICY)
        client.log_artifacts(run.info.run_id, folder)
    number = _create_challenger(run.info.run_id, stored, headline, headline, seed)
    client.set_terminated(run.info.run_id)
    return number, stored


def version_number(alias: str) -> str | None:
    """The number of the version with an alias, or None."""
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        return str(mlflow.MlflowClient().get_model_version_by_alias(MODEL, alias).version)
    except MlflowException:
        return None


def load_version(number: str) -> Version:
    """Load a version with its policy and outcomes.

    Raises:
        RegistryError: the version cannot be read.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    client = mlflow.MlflowClient()
    try:
        version = client.get_model_version(MODEL, number)
        with tempfile.TemporaryDirectory() as folder:
            here = Path(mlflow.artifacts.download_artifacts(artifact_uri=version.source, dst_path=folder))
            policy = read_policy(here)
            uri = f"runs:/{version.run_id}/{OUTCOMES}"
            outcomes = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=folder))
            rows = read_outcomes([outcomes], [model.name for model in policy.rules.models])
    except (MlflowException, OSError, PolicyError, gzip.BadGzipFile) as error:
        raise RegistryError(f"version {number} of {MODEL!r} cannot be read: {error}") from error
    return Version(number, policy, rows, int(version.tags.get("seed", 0)))


def load_champion() -> Version | None:
    """The version that serves; None if there is no champion.

    Raises:
        RegistryError: the champion cannot be read.
    """
    number = version_number(CHAMPION)
    return None if number is None else load_version(number)


def fetch_report(experiment_id: str, run_id: str, folder: Path) -> list[Path]:
    """Download the report and tables of a calibration; of the newest one if `run_id` is empty.

    Raises:
        RegistryError: there is no such calibration, or it has no report.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    if not run_id:
        newest = mlflow.MlflowClient().search_runs([experiment_id], "tags.verdict != ''", max_results=1)
        if not newest:
            raise RegistryError("there is no calibration yet; start one with `python -m calibration run`")
        run_id = newest[0].info.run_id
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return [
            Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=name, dst_path=str(folder)))
            for name in ("report.html", "comparison.csv", OUTCOMES)
        ]
    except MlflowException as error:
        raise RegistryError(f"run {run_id} has no report: {error}") from error

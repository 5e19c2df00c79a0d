"""Rows of question files and MLflow datasets, each with its location for error messages."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

MLFLOW_DATASET = "mlflow:"  # prefix of a source that is a dataset of the tracking server


class QuestionError(ValueError):
    """A row or source is invalid. The message names the location and the problem."""

    def __init__(self, location: str, problem: str) -> None:
        super().__init__(f"{location}: {problem}")
        self.location = location


def rows(source: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The location and content of each row, such as "mine.jsonl:3".

    Raises:
        QuestionError: the source cannot be read, or a row is not an object.
    """
    if source.startswith(MLFLOW_DATASET):
        yield from _dataset_rows(source.removeprefix(MLFLOW_DATASET))
        return
    path = Path(source)
    if not path.is_file():
        raise QuestionError(source, "no such file")
    try:
        yield from _file_rows(path)
    except (OSError, EOFError, UnicodeDecodeError, zlib.error, csv.Error) as error:
        raise QuestionError(source, f"cannot be read ({error})") from error


def _file_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    suffixes = [suffix for suffix in path.suffixes if suffix != ".gz"]
    kind = suffixes[-1] if suffixes else ""
    if kind in (".jsonl", ".ndjson"):
        yield from _json_lines(path)
    elif kind in (".csv", ".tsv"):
        yield from _csv_rows(path, "\t" if kind == ".tsv" else ",")
    else:
        yield from _frame_rows(path, kind)


def _open(path: Path) -> Any:
    return (
        gzip.open(path, "rt", encoding="utf-8-sig")
        if path.suffix == ".gz"
        else path.open(encoding="utf-8-sig", newline="")
    )


def _json_lines(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    with _open(path) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            location = f"{path}:{number}"
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise QuestionError(location, f"not JSON ({error})") from error
            if not isinstance(row, dict):
                raise QuestionError(location, "not a JSON object")
            yield location, row


_JSON_COLUMNS = ("messages", "tools", "reference", "inputs", "expectations", "expected_facts")


def _csv_rows(path: Path, delimiter: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    with _open(path) as lines:
        # pandas does not report the line of a row, and a quoted cell can span several lines.
        reader = csv.DictReader(lines, delimiter=delimiter)
        first_line = 2
        for row in reader:
            location = f"{path}:{first_line}"
            first_line = reader.line_num + 1
            if None in row:
                raise QuestionError(location, "has more cells than the header")
            yield location, _parse_cells(location, row)


def _parse_cells(location: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """Parse the cells of a row; empty cells are left out, and the cell `""` is the empty text."""
    values: dict[str, Any] = {}
    for name, cell in row.items():
        text = cell.strip() if isinstance(cell, str) else cell
        if text in ("", None):
            continue
        if text == '""':
            text = ""
        elif name in _JSON_COLUMNS and isinstance(text, str):
            try:
                text = json.loads(text)
            except (ValueError, RecursionError) as error:
                if name == "expected_facts":
                    text = [fact.strip() for fact in text.splitlines() if fact.strip()]
                elif name != "reference":
                    raise QuestionError(location, f'"{name}" is not JSON ({error})') from error
        elif name == "tolerance" and isinstance(text, str):
            try:
                text = float(text)
            except ValueError as error:
                raise QuestionError(location, f'"tolerance" is not a number: {text!r}') from error
        values[name] = text
    return values


def _frame_rows(path: Path, kind: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    import pandas as pd  # takes half a second, which JSON lines do not need

    readers: Mapping[str, Callable[[Path], pd.DataFrame]] = {
        ".json": lambda path: pd.DataFrame(json.loads(path.read_bytes())),  # pandas' own reader crashes on some files
        ".parquet": pd.read_parquet,
        ".feather": pd.read_feather,
        ".xlsx": pd.read_excel,
        ".orc": pd.read_orc,
    }
    if kind not in readers:
        known = ", ".join([".jsonl", ".csv", ".tsv", *readers])
        raise QuestionError(str(path), f"unknown format {kind or '(no extension)'}; the formats are {known}")
    try:
        frame = readers[kind](path)
    except Exception as error:  # a damaged file raises many kinds of errors
        raise QuestionError(str(path), f"cannot be read ({type(error).__name__}: {error})") from error
    for number, row in enumerate(frame.to_dict("records"), 1):
        location = f"{path}, row {number}"
        yield location, _parse_cells(location, {str(name): _plain(value) for name, value in row.items()})


def _plain(value: Any) -> Any:
    """A cell with plain Python types instead of the NumPy types of nested Parquet columns."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items() if item is not None}
    if hasattr(value, "tolist"):
        value = value.tolist()
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _dataset_rows(name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    from mlflow.exceptions import MlflowException
    from mlflow.genai.datasets import get_dataset

    try:
        dataset = get_dataset(dataset_id=name) if name.startswith("d-") else get_dataset(name=name)
    except MlflowException as error:
        raise QuestionError(MLFLOW_DATASET + name, f"no such dataset ({error.message})") from error
    for number, record in enumerate(dataset.to_df().to_dict("records"), 1):
        row = {field: _plain(record[field]) for field in ("inputs", "expectations") if field in record}
        yield f"{MLFLOW_DATASET}{name}, record {number}", row

"""How far the exporter is behind the journal. Computed from files, so it is known even when no exporter runs."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec

from router.journal.refused import counted
from router.journal.segments import Cursor
from router.journal.writer import Gap, Record
from router.wire.text import DECODE_ERRORS


class _Progress(msgspec.Struct):
    failures: int = 0


_progress = msgspec.json.Decoder(_Progress)


@dataclass(frozen=True, slots=True)
class Lag:
    """The backlog of one reader of the journal."""

    behind_bytes: int
    behind_seconds: float  # age of the oldest unprocessed entry
    failures: int  # consecutive failed attempts
    refused: int = 0  # entries set aside because the sink rejects them


def lags(journal: Path) -> dict[str, Lag]:
    """The lag of each reader, by name."""
    found, refused = {}, counted(journal)
    for path in sorted(journal.glob("*.progress")):
        cursor = Cursor(journal, path.stem)
        failures = 0
        with contextlib.suppress(OSError, *DECODE_ERRORS):
            failures = _progress.decode(path.read_bytes()).failures
        found[path.stem] = Lag(cursor.behind_bytes(), _age_seconds(cursor), failures, refused.get(path.stem, 0))
    return found


def _age_seconds(cursor: Cursor) -> float:
    oldest = cursor.oldest()
    if oldest is None:
        return 0.0
    if isinstance(oldest, Record):
        at = oldest.ended_unix_ns
    else:
        at = oldest.until_unix_ns if isinstance(oldest, Gap) else oldest.unix_ns
    return max(time.time() - at / 1e9, 0.0)

"""The files that store what a calibration paid for."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from calibration.ledger import Ledger


class Ledgers:
    """The ledgers of answers, judge replies and judgements in one folder; a context manager."""

    def __init__(self, folder: Path) -> None:
        self._stack = ExitStack()
        self.answers, self.judge_replies, self.judgements = (
            self._stack.enter_context(Ledger(folder / f"{name}.jsonl")) for name in ("answers", "judge", "judgements")
        )

    def __enter__(self) -> Ledgers:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

"""What models taught by refusing, in ROUTER_HOME/learnt.json: it outlives a worker, and all workers follow it.

A lesson is kept for 30 days: a model may take tomorrow what it refuses today, and a refused call teaches it again.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from router import shared_file
from router.policy.naming import EFFORTS, without_effort
from router.policy.parameters import EFFORT_FIELDS
from router.policy.refusals import INCLUDED_LOGPROBS, MENDABLE, Kind, Refusal
from router.policy.roles import INSTRUCTIONS
from router.settings import Settings

FILE = "learnt.json"
FORMAT = 1
MOST_LESSONS = 1000  # of all models; the oldest go
KEPT_SECONDS = 30 * 24 * 3600.0


class LessonsError(ValueError):
    """The file of lessons does not fit its form; names the file."""


class Lesson(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One refusal that is heeded from then on."""

    model: str  # as the policy calls it
    upstream: str  # host and port of who refused
    endpoint: str
    refusal: Refusal
    since_unix: float


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    format: int
    lessons: tuple[Lesson, ...]


_decoder = msgspec.json.Decoder(_Document)


def upstream_of(model: str, settings: Settings) -> str:
    """Host and port of the upstreams that a model is asked at; nothing secret that their addresses may hold.

    >>> from router.settings import Settings
    >>> upstream_of("gpt-4o", Settings(openai_base_url="https://user:secret@models.example.com:8443/v1"))
    'models.example.com:8443'
    """
    own = settings.models.get(model) or settings.models.get(without_effort(model))
    url = own.base_url if own is not None and own.base_url else settings.base_url
    urls = [each.base_url or url for each in own.upstreams] if own is not None and own.upstreams else [url]
    return ", ".join(sorted({urlsplit(each).netloc.rpartition("@")[2] or each for each in urls}))


def read_lessons(path: Path, now_unix: float) -> tuple[Lesson, ...]:
    """The lessons in a file that are not too old; none where there is no file.

    Raises:
        LessonsError: the file cannot be read, or does not fit its form.
    """
    try:
        document = _decoder.decode(path.read_bytes())
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise LessonsError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LessonsError(f"{path}: is damaged: {error}") from None
    if document.format != FORMAT or not all(_is_sound(lesson.refusal) for lesson in document.lessons):
        raise LessonsError(f"{path}: is damaged: expected format {FORMAT} and refusals that this version knows")
    return tuple(lesson for lesson in document.lessons if now_unix - lesson.since_unix < KEPT_SECONDS)


def _is_sound(refusal: Refusal) -> bool:
    """Whether a refusal is one that `read_refusal` may have made, and that something can be learnt of."""
    rule = refusal.rule
    if refusal.kind is Kind.PARAMETER and rule is not None:
        known = rule.name in MENDABLE and (not rule.called or rule.called in MENDABLE) and not rule.roles
        return known or (rule.name == "include" and rule.without == INCLUDED_LOGPROBS)
    if refusal.kind is Kind.ROLE:
        return refusal.role in INSTRUCTIONS
    return refusal.kind in (Kind.TOOLS, Kind.EFFORT) and set(refusal.efforts) <= set(EFFORTS)


def add(path: Path, lessons: Iterable[Lesson], now_unix: float) -> None:
    """Add lessons to a file, each once; one that is damaged is replaced.

    Raises:
        OSError: the file cannot be written.
    """
    with shared_file.locked(path):
        try:
            known = list(read_lessons(path, now_unix))
        except LessonsError:
            known = []
        same = {(each.model, each.upstream, each.endpoint, msgspec.json.encode(each.refusal)) for each in known}
        for lesson in lessons:
            key = (lesson.model, lesson.upstream, lesson.endpoint, msgspec.json.encode(lesson.refusal))
            if key not in same:
                same.add(key)
                known.append(lesson)
        _write(path, known[-MOST_LESSONS:])


def forget(path: Path, model: str, now_unix: float) -> int:
    """Take the lessons of a model out of a file, at whatever effort; how many there were.

    Raises:
        LessonsError, OSError: the file is damaged, or cannot be written.
    """
    with shared_file.locked(path):
        known = read_lessons(path, now_unix)
        left = [each for each in known if model not in (each.model, without_effort(each.model))]
        if len(left) < len(known):
            _write(path, left)
    return len(known) - len(left)


def _write(path: Path, lessons: Iterable[Lesson]) -> None:
    content = msgspec.json.encode(_Document(FORMAT, tuple(lessons)))
    shared_file.replace(path, msgspec.json.format(content, indent=1) + b"\n")


def described(lesson: Lesson) -> dict[str, Any]:
    """A lesson for readers: the parameter that a model refuses, what is done about it, and since when."""
    parameter, done = _done(lesson.refusal, lesson.endpoint)
    return {
        "model": lesson.model,
        "upstream": lesson.upstream,
        "endpoint": lesson.endpoint,
        "parameter": parameter,
        "done": done,
        "since": dt.datetime.fromtimestamp(lesson.since_unix, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def _done(refusal: Refusal, endpoint: str) -> tuple[str, str]:
    """The parameter, and what is done about it, in words.

    >>> _done(Refusal(Kind.EFFORT, efforts=("low", "high")), "chat/completions")
    ('reasoning_effort', 'set to the nearest of low, high')
    """
    rule = refusal.rule
    if refusal.kind is Kind.TOOLS:
        return "tools", "sent with reasoning effort none"
    if refusal.kind is Kind.EFFORT:
        name = EFFORT_FIELDS.get(endpoint, "reasoning_effort")
        return name, f"set to the nearest of {', '.join(refusal.efforts)}" if refusal.efforts else "left out"
    if refusal.kind is Kind.ROLE:
        if refusal.role == "system":
            return "system messages", "sent as user messages"
        return "developer messages", "sent as system messages, or as user messages where it refuses those too"
    assert rule is not None  # as it is of a parameter
    if rule.called:
        return rule.name, f"sent as {rule.called}"
    if rule.most is not None:
        return rule.name, f"limited to {rule.most}"
    return rule.name, f"sent without {rule.without}" if rule.without else "left out"

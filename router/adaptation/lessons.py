"""The refusals that were learnt from models, in ROUTER_HOME/learnt.json, which all workers share.

A lesson expires after 30 days, because a model may support tomorrow what it refuses today. Another refused request
teaches it again.
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
from router.policy.refusals import ADAPTABLE_PARAMETERS, INCLUDED_LOGPROBS, Refusal, RefusalKind
from router.policy.roles import INSTRUCTIONS
from router.settings import Settings

FILE = "learnt.json"
FORMAT = 1
MAX_LESSONS = 1000  # of all models; the oldest are dropped
MAX_AGE_SECONDS = 30 * 24 * 3600.0


class LessonsError(ValueError):
    """The file of lessons is invalid. The message names the file."""


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


def upstream_hosts(model: str, settings: Settings) -> str:
    """Hosts and ports of the upstreams that serve a model, without credentials in their URLs.

    >>> from router.settings import Settings
    >>> upstream_hosts("gpt-4o", Settings(openai_base_url="https://user:secret@models.example.com:8443/v1"))
    'models.example.com:8443'
    """
    configured = settings.models.get(model) or settings.models.get(without_effort(model))
    url = configured.base_url if configured is not None and configured.base_url else settings.base_url
    urls = [url]
    if configured is not None and configured.upstreams:
        urls = [upstream.base_url or url for upstream in configured.upstreams]
    return ", ".join(sorted({urlsplit(url).netloc.rpartition("@")[2] or url for url in urls}))


def read_lessons(path: Path, now_unix: float) -> tuple[Lesson, ...]:
    """The lessons in a file that have not expired; empty if there is no file.

    Raises:
        LessonsError: the file cannot be read, or is invalid.
    """
    try:
        document = _decoder.decode(path.read_bytes())
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise LessonsError(f"{path} cannot be read: {error.strerror or error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LessonsError(f"{path} is damaged: {error}") from None
    if document.format != FORMAT or not all(_is_valid(lesson.refusal) for lesson in document.lessons):
        raise LessonsError(f"{path} is damaged: expected format {FORMAT} and refusals that this version knows")
    return tuple(lesson for lesson in document.lessons if now_unix - lesson.since_unix < MAX_AGE_SECONDS)


def _is_valid(refusal: Refusal) -> bool:
    """Whether a refusal may come from `read_refusal` and has an effect."""
    rule = refusal.rule
    if refusal.kind is RefusalKind.PARAMETER and rule is not None:
        is_adaptable = (
            rule.name in ADAPTABLE_PARAMETERS
            and (not rule.called or rule.called in ADAPTABLE_PARAMETERS)
            and not rule.roles
        )
        return is_adaptable or (rule.name == "include" and rule.without == INCLUDED_LOGPROBS)
    if refusal.kind is RefusalKind.ROLE:
        return refusal.role in INSTRUCTIONS
    return refusal.kind in (RefusalKind.TOOLS, RefusalKind.EFFORT) and set(refusal.efforts) <= set(EFFORTS)


def add_lessons(path: Path, lessons: Iterable[Lesson], now_unix: float) -> None:
    """Add lessons to a file, without duplicates. A damaged file is replaced.

    Raises:
        OSError: the file cannot be written.
    """
    with shared_file.locked(path):
        try:
            known = list(read_lessons(path, now_unix))
        except LessonsError:
            known = []
        keys = {_key(lesson) for lesson in known}
        for lesson in lessons:
            if _key(lesson) not in keys:
                keys.add(_key(lesson))
                known.append(lesson)
        _write(path, known[-MAX_LESSONS:])


def forget_model(path: Path, model: str, now_unix: float) -> int:
    """Remove the lessons of a model, at every effort, from a file. Returns their number.

    Raises:
        LessonsError: the file is damaged.
        OSError: the file cannot be written.
    """
    with shared_file.locked(path):
        known = read_lessons(path, now_unix)
        remaining = [lesson for lesson in known if model not in (lesson.model, without_effort(lesson.model))]
        if len(remaining) < len(known):
            _write(path, remaining)
    return len(known) - len(remaining)


def _key(lesson: Lesson) -> tuple[str, str, str, bytes]:
    return lesson.model, lesson.upstream, lesson.endpoint, msgspec.json.encode(lesson.refusal)


def _write(path: Path, lessons: Iterable[Lesson]) -> None:
    content = msgspec.json.encode(_Document(FORMAT, tuple(lessons)))
    shared_file.replace(path, msgspec.json.format(content, indent=1) + b"\n")


def describe_lesson(lesson: Lesson) -> dict[str, Any]:
    """A lesson for display: the refused parameter, what the router does instead, and since when."""
    parameter, remedy = _describe_remedy(lesson.refusal, lesson.endpoint)
    return {
        "model": lesson.model,
        "upstream": lesson.upstream,
        "endpoint": lesson.endpoint,
        "parameter": parameter,
        "done": remedy,
        "since": dt.datetime.fromtimestamp(lesson.since_unix, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def _describe_remedy(refusal: Refusal, endpoint: str) -> tuple[str, str]:
    """The refused parameter, and what the router does instead.

    >>> _describe_remedy(Refusal(RefusalKind.EFFORT, efforts=("low", "high")), "chat/completions")
    ('reasoning_effort', 'set to the nearest of low, high')
    """
    rule = refusal.rule
    if refusal.kind is RefusalKind.TOOLS:
        return "tools", "sent with reasoning effort none"
    if refusal.kind is RefusalKind.EFFORT:
        name = EFFORT_FIELDS.get(endpoint, "reasoning_effort")
        return name, f"set to the nearest of {', '.join(refusal.efforts)}" if refusal.efforts else "left out"
    if refusal.kind is RefusalKind.ROLE:
        if refusal.role == "system":
            return "system messages", "sent as user messages"
        return "developer messages", "sent as system messages, or as user messages where it refuses those too"
    assert rule is not None  # a refused parameter has a rule
    if rule.called:
        return rule.name, f"sent as {rule.called}"
    if rule.most is not None:
        return rule.name, f"limited to {rule.most}"
    return rule.name, f"sent without {rule.without}" if rule.without else "left out"

"""Which question each turn of a conversation asks, and how much came before it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from router.policy.asking import Asked, is_material, split
from router.policy.features import CHARACTERS_PER_TOKEN, Features

CACHED_FROM_TOKENS = 1_024  # a shorter prompt is not cached by the provider (OpenAI's guide to prompt caching)
CACHED_IN_STEPS_OF = 128
_FEW_WORDS = 4  # a turn of at most so many goes on with another where they ask nothing by themselves
_SHORT = 8  # and one of so many, where it points back
_POINTS_BACK = frozenset(
    ("it", "its", "that", "this", "these", "those", "they", "them", "again", "instead", "above", "previous", "continue")
)
_GOES_ON = frozenset(("and", "but", "or", "so", "then", "also", "now", "in", "as", "with", "without", "for"))
_ASKS_NOTHING = _GOES_ON | frozenset(
    re.findall(
        r"\S+",
        "a about an are can could detail details do done elaborate else example examples explain further give go going "
        "good great how keep less longer me more next no of ok okay on one please really right same shorter show "
        "simpler sure tell thank thanks the to try what why wrong yes you",
    )
)
_WORD = re.compile(r"[^\W_]+")
_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")  # scripts in which a character is about a word


@dataclass(frozen=True, slots=True)
class Turn:
    """A user turn: what it asks, and the tokens that came before it."""

    asked: Asked
    tokens_before: int
    tokens: int  # of the conversation up to and with this turn

    @property
    def cached_tokens(self) -> int:
        """Tokens that a model reads from its cache if it answered the turn before."""
        return self.tokens_before - self.tokens_before % CACHED_IN_STEPS_OF if self.is_cached else 0

    @property
    def is_cached(self) -> bool:
        return self.tokens_before >= CACHED_FROM_TOKENS


def turns_of(features: Features) -> list[Turn]:
    """The current turn, last, after those whose model it may share a cache with.

    Before the prompt is long enough to be cached no turn depends on the one before, so the first turn returned is
    the last of those. Every replica finds the same turns, since they are read from the request alone.
    """
    said = features.turns
    if not said:
        return [Turn(split(features.system) if not features.messages else Asked(""), 0, features.input_tokens)]
    first = len(said) - 1
    while first > 0 and features.characters_before[first] >= CACHED_FROM_TOKENS * CHARACTERS_PER_TOKEN:
        first -= 1
    return [_turn(features, at) for at in range(first, len(said))]


def _turn(features: Features, at: int) -> Turn:
    before = int(features.characters_before[at] / CHARACTERS_PER_TOKEN)
    is_last = at == len(features.turns) - 1
    tokens = features.input_tokens if is_last else before + int(len(features.turns[at]) / CHARACTERS_PER_TOKEN)
    while at > 0 and (is_follow_up(features.turns[at]) or is_material(features.turns[at])):
        at -= 1
    return Turn(split(features.turns[at]), before, tokens)


def is_follow_up(turn: str) -> bool:
    """Whether a turn asks nothing by itself, so that it goes on with the question before it.

    >>> is_follow_up("ok, continue"), is_follow_up("Why is that?"), is_follow_up("And in French?")
    (True, True, True)
    >>> is_follow_up("What is entropy?"), is_follow_up("Is 195 even?"), is_follow_up("为什么天空是蓝色的？")
    (False, False, False)
    """
    if len(turn) > 200:
        return False
    words = _WORD.findall(turn.lower())
    count = max(len(words), len(_UNSPACED.findall(turn)))
    if count <= 1:
        return True
    if count <= _SHORT and not _POINTS_BACK.isdisjoint(words):
        return True
    return count <= _FEW_WORDS and (words[0] in _GOES_ON or _ASKS_NOTHING.issuperset(words))

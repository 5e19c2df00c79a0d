"""The question that each turn of a conversation asks, and the tokens before it."""

from __future__ import annotations

import re

import msgspec

from router.policy.features import CHARACTERS_PER_TOKEN, Features
from router.policy.question_parts import QuestionParts, is_material, split_question

CACHED_FROM_TOKENS = 1_024  # providers cache no shorter prompt (OpenAI's guide to prompt caching)
CACHED_IN_STEPS_OF = 128
_MAX_FOLLOW_UP_CHARACTERS = 200
_MAX_CONTENTLESS_WORDS = 4  # of a follow-up that has no content of its own
_MAX_REFERRING_WORDS = 8  # of a follow-up that refers to an earlier turn
_REFERRING_WORDS = frozenset(
    ("it", "its", "that", "this", "these", "those", "they", "them", "again", "instead", "above", "previous", "continue")
)
_CONTINUING_WORDS = frozenset(("and", "but", "or", "so", "then", "also", "now", "in", "as", "with", "without", "for"))
_CONTENTLESS_WORDS = _CONTINUING_WORDS | frozenset(
    re.findall(
        r"\S+",
        "a about an are can could detail details do done elaborate else example examples explain further give go going "
        "good great how keep less longer me more next no of ok okay on one please really right same shorter show "
        "simpler sure tell thank thanks the to try what why wrong yes you",
    )
)
_WORD = re.compile(r"[^\W_]+")
_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")  # scripts where a character is about a word


class Turn(msgspec.Struct, frozen=True, gc=False):
    """A user turn: what it asks, and the tokens before it."""

    parts: QuestionParts
    tokens_before: int
    tokens: int  # of the conversation up to and including this turn

    @property
    def cached_tokens(self) -> int:
        """Tokens that the model of the previous turn reads from its cache."""
        return self.tokens_before - self.tokens_before % CACHED_IN_STEPS_OF if self.is_cached else 0

    @property
    def is_cached(self) -> bool:
        return self.tokens_before >= CACHED_FROM_TOKENS


def current_turns(features: Features) -> list[Turn]:
    """The current turn, after the earlier turns whose models may have it in their cache.

    A prompt too short to be cached does not depend on the turn before, so the first turn returned is the last one with
    such a prompt. Turns are read from the request alone, so every replica gets the same.
    """
    turns = features.turns
    if not turns:
        parts = QuestionParts("") if features.messages else split_question(features.system)
        return [Turn(parts, 0, features.input_tokens)]
    first = len(turns) - 1
    while first > 0 and features.characters_before[first] >= CACHED_FROM_TOKENS * CHARACTERS_PER_TOKEN:
        first -= 1
    return [_turn(features, at) for at in range(first, len(turns))]


def _turn(features: Features, at: int) -> Turn:
    before = int(features.characters_before[at] / CHARACTERS_PER_TOKEN)
    is_last = at == len(features.turns) - 1
    tokens = features.input_tokens if is_last else before + int(len(features.turns[at]) / CHARACTERS_PER_TOKEN)
    while at > 0 and (is_follow_up(features.turns[at]) or is_material(features.turns[at])):
        at -= 1
    return Turn(split_question(features.turns[at]), before, tokens)


def is_follow_up(turn: str) -> bool:
    """Whether a turn has no question of its own and continues the one before it.

    >>> is_follow_up("ok, continue"), is_follow_up("Why is that?"), is_follow_up("And in French?")
    (True, True, True)
    >>> is_follow_up("What is entropy?"), is_follow_up("Is 195 even?"), is_follow_up("为什么天空是蓝色的？")
    (False, False, False)
    """
    if len(turn) > _MAX_FOLLOW_UP_CHARACTERS:
        return False
    words = _WORD.findall(turn.lower())
    count = max(len(words), len(_UNSPACED.findall(turn)))
    if count <= 1:
        return True
    if count <= _MAX_REFERRING_WORDS and not _REFERRING_WORDS.isdisjoint(words):
        return True
    return count <= _MAX_CONTENTLESS_WORDS and (words[0] in _CONTINUING_WORDS or _CONTENTLESS_WORDS.issuperset(words))

"""The formats of keys that providers and clouds issue, as regular expressions.

Every expression runs in time linear in the length of the text: repetitions are possessive or bounded, and a match that
can fail after a long run of characters is only tried at the start of the run.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import re2

KEY = "[key]"
_APART = r"(?<![A-Za-z0-9])"  # lookbehind: the start of a word
_TAIL = r"[A-Za-z0-9_-]{16,}+"
_PRIVATE = r"[A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----"


@dataclass(frozen=True)
class Shape:
    """A format of keys: the literals that begin it, and the expression that follows them."""

    signs: tuple[str, ...]
    rest: str
    any_case: bool = False  # the signs, written here in lower case, match in any case
    put: str = KEY  # the replacement
    before: str = _APART

    @cached_property
    def _text(self) -> str:
        signs = [_in_any_case(sign) if self.any_case else re.escape(sign) for sign in self.signs]
        return rf"(?:{'|'.join(signs)}){self.rest}"

    @cached_property
    def expression(self) -> re.Pattern[str]:
        """Matches the key in a text."""
        return re.compile(self.before + self._text)

    @cached_property
    def hint(self) -> re.Pattern[bytes]:
        r"""Matches the key in undecoded JSON, where `\\n` may precede it."""
        return re.compile((self._text if self.before == _APART else self.before + self._text).encode())


def _in_any_case(sign: str) -> str:
    return "".join(f"[{c}{c.upper()}]" if c.isalpha() else re.escape(c) for c in sign)


SHAPES = (
    # OpenAI and Anthropic; Stripe
    Shape(("sk-",), _TAIL),
    Shape(("sk_live_", "sk_test_", "rk_live_", "rk_test_", "pk_live_", "pk_test_", "whsec_"), _TAIL),
    # GitHub, GitLab
    Shape(("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-"), _TAIL),
    # Hugging Face, xAI, Groq, Replicate, Databricks, DigitalOcean
    Shape(("hf_", "xai-", "gsk_", "r8_", "dop_v1_"), _TAIL),
    Shape(("dapi",), r"[a-f0-9]{32}(?:-\d)?"),
    Shape(("npm_", "pypi-"), _TAIL),
    Shape(("SG.",), r"[A-Za-z0-9_-]{16,64}+\.[A-Za-z0-9_-]{16,}+"),
    # Slack
    Shape(("xox",), r"[a-z]-" + _TAIL),
    Shape(("xapp-",), _TAIL),
    # Google
    Shape(("AIza",), r"[A-Za-z0-9_-]{30,}+"),
    Shape(("ya29.", "GOCSPX-"), _TAIL),
    # AWS, Azure
    Shape(("AKIA", "ASIA"), r"[A-Z0-9]{16}\b"),
    Shape(
        ("aws_secret", "secretaccesskey", "secret_access_key"),
        r"[a-z_]{0,16}+[\\\"' \t:=>]{1,12}[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+])",
        any_case=True,
        before="",
    ),
    Shape(("accountkey=", "sharedaccesskey="), r"[A-Za-z0-9+/]{16,}+={0,2}", any_case=True),
    # OAuth tokens: a token begins at the first `eyJ` of a run, so that a run with many is scanned once
    Shape(
        ("eyJ",),
        r"[A-Za-z0-9_-]{10,}+\.[A-Za-z0-9_-]{10,}+\.[A-Za-z0-9_-]{10,}+",
        before=r"(?<![A-Za-z0-9_-])(?:(?!eyJ)[A-Za-z0-9_-])*+",
    ),
    Shape(("bearer ",), r" *+[A-Za-z0-9._~+/-]{16,}+=*+", any_case=True),
    Shape(("basic ",), r" *+(?![A-Za-z]?[a-z]*+(?![A-Za-z0-9+/=]))[A-Za-z0-9+/]{16,}+={0,2}", any_case=True),
    # a password in an address, PEM and PGP
    Shape(("://",), r"[^\s/:@\"'<>\\]{0,100}+:[^\s/@\"'<>\\]{1,200}+@", put="://[key]@", before=""),
    Shape(("-----BEGIN ",), rf"{_PRIVATE}[^-]*+(?:-(?!----END )[^-]*+)*+(?:-----END {_PRIVATE})?", before=""),
)


def matching_shapes(text: bytes) -> list[Shape]:
    """The formats of which a literal occurs in a text. RE2 looks for all literals at once, in linear time.

    >>> matching_shapes(b"no key"), [shape.signs for shape in matching_shapes(b"BEARER sk-abc")]
    ([], [('sk-',), ('bearer ',)])
    """
    found = _SIGNS.Match(text)
    return [_SEARCHED[position] for position in sorted(found)] if found else []


def _compile_signs(shapes: Sequence[Shape]) -> Any:  # an `re2.Set`, whose stub lacks the types
    options: Any = re2.Options()
    options.encoding = options.Encoding.LATIN1  # any bytes
    signs: Any = re2.Set.SearchSet(options)
    for shape in shapes:
        literals = "|".join(map(re.escape, shape.signs))
        signs.Add(f"(?i:{literals})" if shape.any_case else literals)
    signs.Compile()
    return signs


_SEARCHED = sorted(SHAPES, key=lambda shape: shape.any_case)  # those in any case are replaced last
_SIGNS = _compile_signs(_SEARCHED)

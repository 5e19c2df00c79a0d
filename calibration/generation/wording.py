"""Operations on letters and words, which models see as tokens: counting, sorting, reversing, ciphers."""

from __future__ import annotations

from random import Random

from calibration.generation.draft import Draft, Maker, asked, written_lists

_WORDS = (
    *("bassoon", "committee", "raspberry", "mississippi", "bookkeeper", "pineapple", "assassin", "parallelogram"),
    *("entrepreneur", "banana", "cinnamon", "millennium", "possessive", "accommodation", "strawberry", "tattoo"),
    *("lighthouse", "barometer", "kangaroo", "velvet", "harbour", "saxophone", "umbrella", "whistle", "yellow"),
)


def letters(rng: Random, level: int) -> Draft:
    """Count a letter in a word or phrase."""
    words = rng.sample(_WORDS, 1 + level)
    text = " ".join(words)
    letter = rng.choice(sorted(set(text.replace(" ", ""))))
    question = rng.choice(
        (
            f"How many times does the letter '{letter}' occur in \"{text}\"?",
            f"count the {letter}'s in {text}",
            f'Number of "{letter}" in "{text}"?',
        )
    )
    return asked(rng, question, text.count(letter))


def reverse(rng: Random, level: int) -> Draft:
    """Reverse a word, or the order of words."""
    words = rng.sample(_WORDS, (1, 4, 2)[level])
    if level == 1:
        question = f"Put these words in the opposite order and change nothing else: {' '.join(words)}"
        return Draft(f"{question}. Only the words.", " ".join(reversed(words)), "exact")
    text = "".join(words)
    return Draft(f"Write '{text}' backwards. Output nothing but the result.", text[::-1], "exact")


def alphabet(rng: Random, level: int) -> Draft:
    """Sort words alphabetically; by the reversed words at the hard level."""
    words = rng.sample(_WORDS, 4 + 2 * level)
    backwards = level == 2
    right = sorted(words, key=lambda word: word[::-1] if backwards else word)
    by = " by their last letter (then the one before it, and so on)" if backwards else " alphabetically"
    question = f"Sort{by}: {', '.join(words)}. Reply with the list only, separated by commas."
    return Draft(question, written_lists(right), "exact")


def cipher(rng: Random, level: int) -> Draft:
    """Decrypt a Caesar cipher."""
    word, shift = rng.choice(_WORDS), (1, 3, rng.randint(4, 22))[level]
    hidden = "".join(chr((ord(c) - 97 + shift) % 26 + 97) for c in word)
    question = rng.choice(
        (
            f"Each letter was moved forward by {shift} in the alphabet (z wraps to a): {hidden}. What was the word?",
            f"decode caesar shift {shift}: {hidden}",
        )
    )
    return asked(rng, question, word, "exact", what="word in lower case")


def without(rng: Random, level: int) -> Draft:
    """Remove duplicates from a list, or items with a given letter."""
    words = rng.choices(rng.sample(_WORDS, 4 + level), k=7 + 2 * level)
    if level == 0:
        right = list(dict.fromkeys(words))
        question = f"Remove the duplicates, keep the first of each: {', '.join(words)}"
    else:
        letter = rng.choice("aeio")
        right = [word for word in words if letter not in word] or ["none"]
        question = f"Drop every word with the letter {letter} (if none is left write none): {', '.join(words)}"
    return asked(rng, question, written_lists(right), "exact", what="list, separated by commas")


KINDS: dict[str, tuple[Maker, ...]] = {"text/word-tasks": (letters, reverse, alphabet, cipher, without)}

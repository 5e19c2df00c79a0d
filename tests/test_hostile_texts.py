"""No text blocks the event loop: the time of every expression grows linearly with the text."""

import importlib
import pkgutil
import re
import time
from dataclasses import replace

import pytest

import calibration
import router
from router.journal.credentials import SHAPES
from router.policy.answer_text import parse_answer
from router.policy.parameters import RESPONSES, ParameterRule, ParameterSupport, compute_adaptation
from router.policy.program import extract_program
from router.wire import bodies
from router.wire.parameters import parameter_edits

ANY = ("a", "1", " ", "\n", "1.", "a ", "-", "A1-", "\\", '"', "é")
HOSTILE = {  # by expression: units whose repetition could cause backtracking
    "calibration.checks.comparisons._BOLD": ("**", "**a"),
    "calibration.checks.comparisons._FENCE": ("```a", "```a\n", "`"),
    "calibration.checks.comparisons._LEADING_LETTER": ("*_", "( "),
    "calibration.checks.comparisons._LETTER": ("A", "A "),
    "calibration.checks.comparisons._LONG_EXPONENT": ("1e", "e-1", "_"),
    "calibration.checks.comparisons._MARKER": ("answer ", "answer   is", "\\boxed "),
    "calibration.checks.comparisons._NUMBER": ("1,", "1,111", "-1", "1e", "1/", "\\frac{"),
    "calibration.learning.duplicates._WORD": ("1,",),
    "calibration.judging.relay._FENCE": (" ", "``` ", "```json", "\n```"),
    "router.client.issuing._DURATION": ("1", "1d"),
    "router.client.keyfile._DIGEST": ("0", "a"),
    "router.client.keyfile._NAME": ("a.", "-"),
    "router.commands.doctor.upstreams._PRINTABLE": ("Bearer ", "Bearer a"),
    "router.journal.redaction._LOGIN": ("//", "//a", "a@"),
    "router.journal.redaction._CARDS": ("1-", "1 1", "11111111111111.", "1.1"),
    "router.journal.redaction._CODE": ("a.",),
    "router.journal.redaction._EMAILS": ("a@", "a@b.", "@", "a.", "%+"),
    "router.journal.redaction._ESCAPE": ("\\u002", "\\/", "\\u00"),
    "router.policy.courtesy._CLOSING": ("best regards ", "thanks,"),
    "router.policy.courtesy._COURTESY": ("thank ", "please help"),
    "router.policy.courtesy._GREETING": ("hi ", "hi there,", "hello Ada "),
    "router.policy.courtesy._INSTRUCTION": ("answer the ", "you are ", "the question is"),
    "router.policy.sections._LABEL": ("#", "A ", "a_", "=}"),
    "router.policy.question_parts._OPTION": ("(a) ", "(", "* "),
    "router.policy.courtesy._SENTENCE_END": (". ", "! \n"),
    "router.policy.sections._TAG": ("<a ", "<", "</a", "[A", "[/"),
    "router.policy.courtesy._THANKS": ("thanks ", "thanks so much", "ty "),
    "router.policy.text._REPLACED": ("‘", "\u200b"),
    "router.endpoints.management._OPTION": ("--a", "-"),
    "router.policy.answer_features.NUMBER": ("1,", "$1", "-1,", "1,a"),
    "router.policy.answer_features._DOUBT": ("but ", "incorrect", "re-check", "let's "),
    "router.policy.answer_features._HEDGE": ("assum", "may ", "if "),
    "router.policy.answer_features._LARGER": ("more ", "max"),
    "router.policy.answer_features._REFUSAL": ("i ", "i'm ", "not ", "unable "),
    "router.policy.answer_features._SMALLER": ("less ", "min"),
    "router.policy.answer_features._WORD": ("a1", "é!"),
    "router.policy.answer_text.NUMBER": ("1,", "$1", "-1,", "1,a"),
    "router.policy.answer_text._BOXED": ("\\boxed{", "\\boxed ", "{}", "\\boxed{{}"),
    "router.policy.answer_text._ANSWER_PHRASE": ("answer is ", "total:\n", "####", "#### \n"),
    "router.policy.answer_text._ANSWER_FIELD": ('"answer":"', '"answer" ', '"answer":\n', '"answer":"\\'),
    "router.policy.answer_text._EQUATION": ("1+", "1 + ", "1 ", "1,", "1 a * ", "1=", "1+1=1 "),
    "router.policy.answer_text._TOKEN": ("1,", "1.", "\\times"),
    "router.policy.program._IGNORE_WARNINGS": ("<question", "<"),
    "router.policy.program._FUNCTION": ("def a", "def a(\n", "\ndef "),
    "router.policy.program._CLOSING_FENCE": ("`", "[/PYTHON"),
    "router.policy.program._OPENING_FENCE": ("``` ", "[PYTHON] ", "[PYTHON]\n"),
    "router.policy.program._PLACEHOLDER": ("?", "._", "__"),
    "router.verifying.code._EXCERPT": ("<a", "<a ", "{", ".."),
    "router.verifying.code._FENCE": ("> ", "\n> ", "\n ", "```", "~~~\n"),
    "router.verifying.code._MAGIC": ("\n ", "\n%", "\t"),
    "router.verifying.code._SESSION": ("\n ", ">>>", "\nIn [1", "\t"),
    "router.policy.conversation._UNSPACED": ("日",),
    "router.policy.conversation._WORD": ("a_",),
    "router.policy.distribution._VERSION": ('version = "', 'version = "a\n', '\nversion = "a"'),
    "router.policy.inputs._ASCII_WORD": ("a'", "0,", "0,0"),
    "router.policy.inputs._CONTENT": ("aa1",),
    "router.policy.inputs._DECIMALS": ("1.",),
    "router.policy.inputs._FOREIGN": ("é",),
    "router.policy.inputs._LATEX": ("\\a", "$"),
    "router.policy.inputs._NUMBERS": ("1,", "1.1"),
    "router.policy.inputs._OPTIONS": ("\n", "(", "\n(A", "(A", " \n"),
    "router.policy.inputs._OPTION_HINT": ("A", "(A"),
    "router.policy.inputs._PARTS": ("aA", "_"),
    "router.policy.inputs._WORD": ("a'", "é'", "0,"),
    "router.policy.proxies._HOST": (".", ":"),
    "router.commands.pricing.public_map._LIKE_A_PRICE": ("cost", "cost_", "cos"),
    "router.commands.pricing.public_map._PRICE": ("input_cost_per_token", "_above_", "_above_1k_tokens"),
    "router.client.model_names._AT": ("auto@", "@"),
    "router.upstream.tunnel._END": ("\r\n", "\r", "\n\r"),
    "router.upstream.tunnel._STATUS": ("HTTP/1.1 200 ", "HTTP/1.1 200 \r"),
    "router.wire.bodies._SEPARATOR": ("[", ",", " ", ", "),
    "router.wire.bodies._END": (" ", "}"),
    "router.wire.bodies._KEY": ('{"', '{"a', ',"\\', '{"\\"', ", ", '","'),
    "router.wire.head_tail._TEXT": ('"id":"', '"id"   :', '"model":"a'),
    "router.wire.head_tail._USAGE": ('"usage"', '"usage" :', '"usage":{'),
    "router.wire.event_edits._COMMA": (" ", " ,", ","),
    "router.wire.nesting._STRING": ('"', '"a', '"\\\\', '\\\\"'),
    "router.wire.skeleton._OPENING": ('"data', '"data" ', '"data:', '"data"        :'),
    "router.wire.sse._BOUNDARY": ("\r\n", "\r", "\n\r"),
    "router.wire.sse._LINE": ("\r\n", "\r"),
    "router.wire.text._ESCAPE": ("\\ud83d", "\\ud", "\\\\"),
}
AT_ITS_BEGINNING = {  # used only with `match` and `fullmatch`
    *("calibration.checks.comparisons._LEADING_LETTER", "router.wire.bodies._KEY", "router.wire.bodies._END"),
    *("router.wire.event_edits._COMMA", "router.policy.sections._LABEL", "router.policy.courtesy._INSTRUCTION"),
    *("router.policy.courtesy._COURTESY", "router.policy.courtesy._GREETING", "router.policy.courtesy._CLOSING"),
    *("router.commands.pricing.public_map._LIKE_A_PRICE", "router.commands.pricing.public_map._PRICE"),
    *("router.policy.question_parts._OPTION", "router.client.model_names._AT", "router.journal.redaction._CODE"),
    *("router.upstream.tunnel._STATUS", "router.wire.bodies._SEPARATOR"),
    *("router.client.issuing._DURATION", "router.client.keyfile._DIGEST", "router.client.keyfile._NAME"),
}
LENGTH = 3_000
UNNOTICED = 50e-9  # seconds per character; faster expressions are not measured further
TIMES = 4
MOST_GROWTH = 8  # for four times the text; quadratic time would be 16


def patterns_in(value, visited):
    if isinstance(value, re.Pattern):
        yield value
    elif isinstance(value, (tuple, list, set, frozenset, dict)) and id(value) not in visited:
        visited.add(id(value))
        for inner in (*value, *value.values()) if isinstance(value, dict) else value:
            yield from patterns_in(inner, visited)


def expressions():
    """Every compiled expression of the project, by its name in its module."""
    patterns = {}
    for package in (router, calibration):
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if info.name.endswith("__main__"):
                continue
            for name, value in vars(importlib.import_module(info.name)).items():
                for pattern in patterns_in(value, set()):
                    patterns.setdefault(f"{info.name}.{name}", []).append(pattern)
    return patterns


def seconds(pattern, unit, length, search):
    """CPU time, which other processes do not change."""
    text = (unit * (length // len(unit) + 1))[:length]
    text = text.encode() if isinstance(pattern.pattern, bytes) else text
    best = float("inf")
    for _ in range(3):
        start = time.thread_time()
        for _ in pattern.finditer(text) if search else ():
            pass
        pattern.match(text)
        best = min(best, time.thread_time() - start)
        if best < UNNOTICED * length:
            break
    return best


def is_linear(pattern, unit, search=True):
    """Whether a text that is four times as long takes about four times as long.

    Other processes only slow a measurement down, so the fastest of several rounds counts. One round is not enough: a
    disturbed measurement of the short text makes quadratic time look linear.
    """
    short = long = float("inf")
    for measured in range(1, 6):
        short = min(short, seconds(pattern, unit, LENGTH, search))
        if short < UNNOTICED * LENGTH:
            return True
        long = min(long, seconds(pattern, unit, TIMES * LENGTH, search))
        if measured > 1 and long < MOST_GROWTH * short:
            return True
    return False


def test_every_expression_has_hostile_texts():
    assert set(expressions()) - set(HOSTILE) == set()


def test_the_time_of_every_expression_is_linear():
    slow = [
        (name, unit)
        for name, patterns in expressions().items()
        for pattern in patterns
        for unit in (*ANY, *HOSTILE.get(name, ()))
        if not is_linear(pattern, unit, name not in AT_ITS_BEGINNING)
    ]
    assert slow == []


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.signs[0])
def test_the_time_to_find_keys_is_linear(shape):
    for sign in shape.signs:
        units = (sign, f"{sign}-", f"{sign}a", f"{sign}a ", f"{sign}   ", f"{sign}A1.", f"{sign}=", f"{sign}a:b")
        for unit in units:
            assert is_linear(shape.expression, unit), unit
            assert is_linear(shape.hint, unit), unit
        for prefix in (f"{sign}aaaaaaaaaaaaaaaaaaaaaaaa", f"{sign}RSA PRIVATE KEY-----"):
            for unit in ANY:
                text = prefix + unit * LENGTH
                start = time.thread_time()
                shape.expression.search(text)
                assert time.thread_time() - start < 0.5


@pytest.mark.parametrize(
    ("read_features", "prefix", "unit"),
    [
        (parse_answer, "The answer is ", "\n"),
        (parse_answer, "#### ", " "),
        (extract_program, "", "[PYTHON]\n"),
        (extract_program, "", "```\n"),
    ],
)
def test_the_time_to_read_answer_features_is_linear(read_features, prefix, unit):
    assert is_linear(Reader(read_features, prefix), unit, search=False)


class Reader:
    """A function of a text, measured as if it were an expression."""

    pattern = ""

    def __init__(self, read_features, prefix):
        self._read, self._begun = read_features, prefix

    def match(self, text):
        self._read(self._begun + text)


def test_the_measurement_detects_quadratic_time():
    assert not is_linear(re.compile(r"eyJ[A-Za-z0-9_-]{10,}\."), "eyJ-")
    assert is_linear(re.compile(r"(?<![\w-])eyJ[A-Za-z0-9_-]{10,}+\."), "eyJ-")


def test_a_key_of_megabytes_is_found_with_little_memory():
    import tracemalloc

    body = b'{"' + b"a" * 2**21 + b'":1,"' + b"\\n" * 2**20 + b'":2}'
    fields = bodies.read_fields(body)
    tracemalloc.start()
    bodies.locate_fields(body, fields)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * 2**20


def adapt(body):
    """Adapt a body to a model that supports few parameters, from its text to the sent bytes."""
    fields = bodies.read_fields(body)
    adaptation = compute_adaptation(TAKES_LITTLE, fields, RESPONSES, "low")
    return b"".join(
        bodies.apply_edits([body], parameter_edits(body, bodies.locate_fields(body, fields), adaptation.changes))
    )


TAKES_LITTLE = ParameterSupport(
    (*(ParameterRule(f"p{n}") for n in range(900)), ParameterRule("include", without="x")),
    efforts={RESPONSES: ("low",)},
    tools_need_no_effort=True,
)
NO_INSTRUCTIONS = ParameterRule("input", roles={"developer": "user", "system": "user"})
TAKES_LITTLE = replace(TAKES_LITTLE, rules=(*TAKES_LITTLE.rules, NO_INSTRUCTIONS))
HOSTILE_BODIES = {
    "many fields that go": lambda n: b"{" + b",".join(b'"p%d":%b' % (i, b"1" * (n // 900)) for i in range(900)) + b"}",
    "blanks around what goes": lambda n: b'{"p1"%b:%b1%b,"a":1}' % ((b" " * (n // 3),) * 3),
    "commas in what goes": lambda n: b'{"p1":"%b","p2":"%b","a":1}' % (b"," * (n // 2), b'\\"' * (n // 4)),
    "a key of escapes": lambda n: b'{"%b":1,"p1":1}' % (b'\\"' * (n // 2)),
    "a long effort": lambda n: b'{"reasoning":{"effort":"%b"}}' % (b"x" * n),
    "much beside an effort": lambda n: (
        b'{"reasoning":{%b"effort":"high"}}' % b"".join(b'"k%d":[],' % i for i in range(n // 10))
    ),
    "a list of what goes": lambda n: b'{"include":[%b"x"]}' % (b'"x",' * (n // 4)),
    "a list of lists": lambda n: b'{"include":%b}' % (b"[" * 900 + b"]" * 900 + b" " * n),
    "blanks for tools": lambda n: b'{"tools":[%b]}' % (b" " * n),
    "many messages": lambda n: b'{"input":[%b{}]}' % (b'{"role":"developer"},' * (n // 21)),
    "many messages of nothing": lambda n: b'{"input":[%b{"role":"system"}]}' % (b"{}," * (n // 3)),
    "many items that are none": lambda n: b'{"input":[{"role":"system"}%b]}' % (b",1" * (n // 2)),
    "blanks between messages": lambda n: b'{"input":[%b{"role":"system"}%b,{}]}' % ((b" " * (n // 2),) * 2),
    "many roles of a message": lambda n: b'{"input":[{%b"role":"system"}]}' % (b'"role":"system",' * (n // 16)),
    "much beside a role": lambda n: (
        b'{"input":[{%b"role":"system"}]}' % b"".join(b'"k%d":[],' % i for i in range(n // 10))
    ),
    "a long role": lambda n: b'{"input":[{"role":"%b"},{"role":"system"}]}' % (b"\\u0064" * (n // 6)),
    "a number of digits": lambda n: b'{"p1":%b}' % (b"9" * n),
}


@pytest.mark.parametrize("name", HOSTILE_BODIES)
def test_the_time_to_adapt_a_body_is_linear(name):
    def best(length):
        body, times = HOSTILE_BODIES[name](length), []
        for _ in range(5):
            start = time.thread_time()
            adapt(body)
            times.append(time.thread_time() - start)
        return min(times)

    for _ in range(3):  # other processes run on this machine
        short, long = best(50_000), best(TIMES * 50_000)
        if long < max(MOST_GROWTH * short, 2e-3):
            return
    raise AssertionError((short, long))

"""Dates: weekdays, periods and deadlines, computed with `datetime`."""

from __future__ import annotations

import calendar
from datetime import date, timedelta
from random import Random

from calibration.generation.draft import Draft, Maker, asked

_WEEKDAYS = {
    "en": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "de": ("Montag", "Dienstag", "Mittwoch", "Donnerstag", "Freitag", "Samstag", "Sonntag"),
    "fr": ("lundi", "mardi", "mercredi", "jeudi", "vendredi", "samedi", "dimanche"),
    "es": ("lunes", "martes", "miércoles", "jueves", "viernes", "sábado", "domingo"),
    "pt": ("segunda-feira", "terça-feira", "quarta-feira", "quinta-feira", "sexta-feira", "sábado", "domingo"),
    "zh": ("星期一", "星期二", "星期三", "星期四", "星期五", "星期六", "星期日"),
    "ja": ("月曜日", "火曜日", "水曜日", "木曜日", "金曜日", "土曜日", "日曜日"),
}
_OTHER_NAMES = {"Samstag": "Sonnabend", "星期日": "星期天"}
_ASK_WEEKDAY = (
    ("en", "What day of the week is {day} (Gregorian calendar)? Reply with the weekday only."),
    ("en", "{day}: which weekday? one word"),
    ("en", "I was told to come on {day}. Which weekday is that? Just the name of the day."),
    ("de", "Auf welchen Wochentag fällt der {day} (Jahr-Monat-Tag)? Nur der Wochentag."),
    ("fr", "Quel jour de la semaine tombe le {day} (année-mois-jour) ? Réponds par un mot."),
    ("es", "¿Qué día de la semana es el {day} (año-mes-día)? Solo el día."),
    ("pt", "Que dia da semana é {day} (ano-mês-dia)? Só o nome do dia, por exemplo terça-feira."),
    ("zh", "{day}是星期几？只回答“星期X”。"),
    ("ja", "{day} は何曜日ですか。曜日だけ答えてください。"),
)


def _some_day(rng: Random, level: int) -> date:
    years = ((2020, 2035), (1950, 2060), (1800, 2200))[level]
    return date(rng.randint(*years), 1, 1) + timedelta(days=rng.randint(0, 364))


def weekday(rng: Random, level: int) -> Draft:
    """The weekday of a date."""
    day = _some_day(rng, level)
    language, phrase = rng.choice(_ASK_WEEKDAY)
    name = _WEEKDAYS[language][day.weekday()]
    names = [name, _OTHER_NAMES[name]] if name in _OTHER_NAMES else name
    return Draft(phrase.format(day=day.isoformat()), names, "exact", language)


def span(rng: Random, level: int) -> Draft:
    """The number of days between two dates."""
    start = _some_day(rng, level)
    end = start + timedelta(days=rng.randint((5, 40, 400)[level], (60, 500, 9_000)[level]))
    question = rng.choice(
        (
            f"How many days are there from {start} to {end}, not counting the first day?",
            f"days between {start.strftime('%d %B %Y')} and {end.strftime('%d %B %Y')}? (end date minus start date)",
            f"A subscription ran from {start} and ended on {end}. By how many days is the second date later?",
        )
    )
    return asked(rng, question, (end - start).days)


def later(rng: Random, level: int) -> Draft:
    """The date a number of days later or earlier."""
    start = _some_day(rng, level)
    days = rng.randint((10, 50, 300)[level], (40, 300, 2_000)[level]) * rng.choice((1, -1))
    there = start + timedelta(days=days)
    word = "after" if days > 0 else "before"
    question = rng.choice(
        (
            f"Which date is {abs(days)} days {word} {start}?",
            f"Give the date {abs(days)} days {word} {start.strftime('%d %B %Y')}.",
        )
    )
    return asked(rng, question, there.isoformat(), "exact", what="date as YYYY-MM-DD")


def workdays(rng: Random, level: int) -> Draft:
    """A deadline in working days, Monday to Friday; with holidays at the hard level."""
    start = _some_day(rng, 0)
    count = rng.randint((3, 8, 15)[level], (8, 20, 40)[level])
    closed = sorted({start + timedelta(days=rng.randint(2, count)) for _ in range(level)})
    there, left = start, count
    while left:
        there += timedelta(days=1)
        if there.weekday() < 5 and there not in closed:
            left -= 1
    note = f" The office is also closed on {' and '.join(map(str, closed))}." if closed else ""
    question = (
        f"A claim arrives on {start} ({calendar.day_name[start.weekday()]}). It must be answered within {count} "
        f"working days (Monday to Friday), the first being the day after it arrived.{note} What is the last day?"
    )
    return asked(rng, question, there.isoformat(), "exact", what="date as YYYY-MM-DD")


KINDS: dict[str, tuple[Maker, ...]] = {"math/dates": (weekday, span, later, workdays)}

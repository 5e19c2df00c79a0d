"""`python -m router prices`: shows the price table and compares it with a map in LiteLLM's format."""

import json
import os
import subprocess
from datetime import date

import pytest
from command_line import run as run_module
from typer.testing import CliRunner

from router.commands.pricing.commands import app
from router.commands.pricing.comparison import Finding, compare
from router.commands.pricing.public_map import MapError, PublicMap
from router.commands.pricing.rates import Kind, Rate, rates
from router.policy.prices import LongContext, Price, PriceBook, day_unix_ns, period_at
from router.serving.policy import prices
from router.settings import load

KEYS = {
    Kind.INPUT: "input_cost_per_token",
    Kind.CACHED_INPUT: "cache_read_input_token_cost",
    Kind.CACHE_WRITE: "cache_creation_input_token_cost",
    Kind.AUDIO_INPUT: "input_cost_per_audio_token",
    Kind.IMAGE_INPUT: "input_cost_per_image_token",
    Kind.OUTPUT: "output_cost_per_token",
    Kind.REASONING: "output_cost_per_reasoning_token",
    Kind.AUDIO_OUTPUT: "output_cost_per_audio_token",
}
LUNA = {  # gpt-5.6-luna since 2026-07-30, written by hand
    "input_cost_per_token": 2e-07,
    "input_cost_per_token_above_272k_tokens": 4e-07,
    "output_cost_per_token": 1.2e-06,
    "output_cost_per_token_above_272k_tokens": 1.8e-06,
    "cache_read_input_token_cost": 2e-08,
    "cache_read_input_token_cost_above_272k_tokens": 4e-08,
    "cache_creation_input_token_cost": 2.5e-07,
    "cache_creation_input_token_cost_above_272k_tokens": 5e-07,
    "litellm_provider": "openai",
    "max_input_tokens": 922000,
    "mode": "chat",
}
LUNA |= {
    f"{key}{suffix}": value * factor
    for suffix, factor in (("_flex", 0.5), ("_batches", 0.5), ("_priority", 2))
    for key, value in LUNA.items()
    if "cost" in key
}
SPEC = {"sample_spec": {"input_cost_per_token": 0.0, "mode": "one of: chat, embedding"}}
TODAY = day_unix_ns(date(2026, 11, 28))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Run in an empty folder without settings of the machine."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("ROUTER_")]:
        monkeypatch.delenv(name)


def equal_map(unix_ns: int = TODAY) -> dict:
    """The router's price table in the format of the map."""
    book = prices(load())
    rows = {}
    for model in book.prices:
        period = period_at(book.history(model), unix_ns)
        if period is not None:
            rows[model] = {key_of(rate): usd / 1e6 for rate, usd in rates(period).items()}
    return {**SPEC, **rows}


def key_of(rate: Rate) -> str:
    long = f"_above_{rate.above_input_tokens // 1000}k_tokens" if rate.above_input_tokens else ""
    tier = {"": "", "batch": "_batches"}.get(rate.tier, f"_{rate.tier}")
    return KEYS[rate.kind] + long + tier


def run(*arguments: str):
    return CliRunner().invoke(app, arguments, terminal_width=200)


def check(table: object, *options: str) -> tuple[int, dict]:
    """Exit code and JSON of `prices check`."""
    with open("map.json", "w") as file:  # noqa: PTH123  the working folder is the test's own
        file.write(table if isinstance(table, str) else json.dumps(table))
    result = run("check", "map.json", "--on", "2026-11-28", "--json", *options)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, json.loads(result.stdout)


def difference_rows(answer: dict) -> list[tuple]:
    return [
        (
            difference["model"],
            difference["difference"],
            difference["kind"],
            difference["tier"],
            difference["above_input_tokens"],
        )
        for difference in answer["differences"]
    ]


def test_an_equal_file_has_no_difference():
    code, answer = check(equal_map())
    assert (code, answer["differences"]) == (0, [])
    assert answer["models"] == list(prices(load()).prices)


def test_a_row_is_equal_on_its_day_and_differs_in_every_earlier_price():
    assert check({"gpt-5.6-luna": LUNA}, "--models", "gpt-5.6-luna")[0] == 0
    code, answer = check({"gpt-5.6-luna": LUNA}, "--models", "gpt-5.6-luna", "--on", "2026-07-29")
    assert code == 1
    assert len(answer["differences"]) == 4 * 4 * 2  # kinds, tiers, and long requests
    assert {difference["difference"] for difference in answer["differences"]} == {"different_price"}
    assert {round(difference["relative_difference"], 12) for difference in answer["differences"]} == {-0.8}
    assert answer["day"] == "2026-07-29"


@pytest.mark.parametrize(
    ("key", "rate", "router_price"),
    [
        ("input_cost_per_token", ("input", "standard", 0), 0.2),
        ("output_cost_per_token_flex", ("output", "flex", 0), 0.6),
        ("cache_read_input_token_cost_batches", ("cached input", "batch", 0), 0.01),
        ("cache_creation_input_token_cost_priority", ("cache write", "priority", 0), 0.5),
        ("input_cost_per_token_above_272k_tokens", ("input", "standard", 272_000), 0.4),
        ("output_cost_per_token_above_272k_tokens_priority", ("output", "priority", 272_000), 3.6),
    ],
)
def test_a_different_price_is_reported_with_both_values_and_their_ratio(key, rate, router_price):
    code, answer = check({"gpt-5.6-luna": {**LUNA, key: LUNA[key] * 1.5}}, "--models", "gpt-5.6-luna")
    assert code == 1
    assert difference_rows(answer) == [("gpt-5.6-luna", "different_price", *rate)]
    only = answer["differences"][0]
    assert only["ours_usd_per_million_tokens"] == pytest.approx(router_price)
    assert only["theirs_usd_per_million_tokens"] == pytest.approx(router_price * 1.5)
    assert only["relative_difference"] == pytest.approx(0.5)


def test_prices_in_only_one_table_are_reported():
    row = {**LUNA, "output_cost_per_reasoning_token": 9e-06, "input_cost_per_token_ultrafast": 6e-07}
    row["input_cost_per_audio_token"] = 4e-06
    del row["cache_read_input_token_cost_flex"], row["output_cost_per_token_above_272k_tokens_flex"]
    code, answer = check({"gpt-5.6-luna": row}, "--models", "gpt-5.6-luna")
    assert code == 1
    assert sorted(difference[1:] for difference in difference_rows(answer)) == [
        ("only_ours", "cached input", "flex", 0),
        ("only_ours", "output", "flex", 272_000),
        ("only_theirs", "audio input", "standard", 0),
        ("only_theirs", "input", "ultrafast", 0),
        ("only_theirs", "reasoning", "standard", 0),
    ]


def test_the_long_context_limit_is_read_from_the_name():
    row = {key.replace("above_272k", "above_200k"): value for key, value in LUNA.items()}
    answer = check({"gpt-5.6-luna": row}, "--models", "gpt-5.6-luna")[1]
    assert {(difference[1], difference[4]) for difference in difference_rows(answer)} == {
        ("only_ours", 272_000),
        ("only_theirs", 200_000),
    }


def test_long_requests_at_the_base_price_need_no_row():
    price = Price(2.0, 10.0, long_context=LongContext(272_000, 2.0, 1.0))
    row = {"input_cost_per_token": 2e-06, "output_cost_per_token": 1e-05}
    row["input_cost_per_token_above_272k_tokens"] = 4e-06
    assert not compare(PriceBook({"m": price}, {}), PublicMap({"m": row}), 0).differences
    row["output_cost_per_token_above_128k_tokens"] = 1e-05
    assert not compare(PriceBook({"m": price}, {}), PublicMap({"m": row}), 0).differences


def test_models_missing_from_the_file_are_reported():
    table = equal_map()
    del table["gpt-4o"]
    code, answer = check(table)
    assert (code, difference_rows(answer)) == (1, [("gpt-4o", "not_in_file", None, None, None)])


def test_a_model_is_found_with_its_provider_prefix_after_its_exact_name():
    table = equal_map()
    table["openai/gpt-4o"] = table.pop("gpt-4o")
    assert check(table)[0] == 0
    table["azure/gpt-4o-mini"] = table.pop("gpt-4o-mini")  # another provider may have another price
    assert difference_rows(check(table)[1]) == [("gpt-4o-mini", "not_in_file", None, None, None)]
    table["gpt-4o-mini"] = table["azure/gpt-4o-mini"]
    table["openai/gpt-4o-mini"] = {"input_cost_per_token": 1.0}
    assert check(table)[0] == 0


def test_an_effort_is_compared_at_the_price_of_its_model():
    assert check({"gpt-5.6-luna": LUNA}, "--models", "gpt-5.6-luna:low")[0] == 0


def test_the_specification_entry_of_the_map_is_not_a_model():
    book = PriceBook({"sample_spec": Price(1.0, 1.0)}, {})
    differences = compare(book, PublicMap({**SPEC}), 0).differences
    assert [difference.finding for difference in differences] == [Finding.NOT_IN_FILE]


def test_an_alias_is_compared_if_both_tables_have_a_price():
    table = equal_map()
    table["gpt-4o-2024-08-06"] = {key: usd for key, usd in table["gpt-4o"].items() if "priority" not in key}
    code, answer = check(table)
    assert code == 0 and "gpt-4o-2024-08-06" in answer["models"]
    table["gpt-4o-2024-08-06"]["input_cost_per_token"] = 5e-06
    assert difference_rows(check(table)[1]) == [("gpt-4o-2024-08-06", "different_price", "input", "standard", 0)]


def test_a_day_before_the_first_price_is_reported_once():
    code, answer = check({"gpt-5.6-luna": LUNA}, "--models", "gpt-5.6-luna", "--on", "2026-07-01")
    assert (code, difference_rows(answer)) == (1, [("gpt-5.6-luna", "no_price_of_ours", None, None, None)])
    assert (
        check({"gpt-4o": {}}, "--models", "gpt-5.6-luna,gpt-4o", "--on", "2026-07-01")[1]["differences"][0]["model"]
        == "gpt-4o"
    )  # neither table has gpt-5.6-luna on that day


def test_without_a_day_todays_prices_are_compared(monkeypatch):
    monkeypatch.setattr("router.commands.pricing.commands.time.time_ns", lambda: day_unix_ns(date(2026, 7, 30)) - 1)
    with open("map.json", "w") as file:  # noqa: PTH123
        json.dump({"gpt-5.6-luna": LUNA}, file)
    result = run("check", "map.json", "--models", "gpt-5.6-luna", "--json")
    assert (result.exit_code, json.loads(result.stdout)["day"]) == (1, "2026-07-29")
    monkeypatch.setattr("router.commands.pricing.commands.time.time_ns", lambda: day_unix_ns(date(2026, 7, 30)))
    assert run("check", "map.json", "--models", "gpt-5.6-luna").exit_code == 0


def test_configured_prices_replace_the_shipped_ones(monkeypatch):
    prices = {"usd_per_million_input_tokens": 1.0, "usd_per_million_output_tokens": 2.0}
    monkeypatch.setenv("ROUTER_MODELS", json.dumps({"gpt-5.6-luna": prices, "mine": prices}))
    row = {"input_cost_per_token": 1e-06, "output_cost_per_token": 2e-06}
    assert check({"gpt-5.6-luna": row, "mine": row}, "--models", "gpt-5.6-luna,mine")[0] == 0
    assert "setting models.mine" in run("show", "mine").stdout


@pytest.mark.parametrize(
    "written",
    ['"2e-07"', "-2e-07", "NaN", "Infinity", "-Infinity", "1e305", "1e999", "true", "[2e-07]", "{}", "9" * 5000],
)
def test_an_invalid_price_is_the_only_finding_of_its_model(written):
    table = json.dumps({"gpt-5.6-luna": LUNA}).replace(
        '"input_cost_per_token": 2e-07', f'"input_cost_per_token": {written}'
    )
    code, answer = check(table, "--models", "gpt-5.6-luna")
    assert (code, difference_rows(answer)) == (1, [("gpt-5.6-luna", "not_a_price", "input", "standard", 0)])
    assert answer["differences"][0]["told"].startswith("input_cost_per_token is ")
    assert len(answer["differences"][0]["told"]) < 80


def test_null_counts_as_no_price():
    table = {"gpt-5.6-luna": {**LUNA, "output_cost_per_token_flex": None, "output_cost_per_reasoning_token": None}}
    answer = check(table, "--models", "gpt-5.6-luna")[1]
    assert difference_rows(answer) == [("gpt-5.6-luna", "only_ours", "output", "flex", 0)]


def test_a_price_of_zero_has_no_relative_difference():
    free = PriceBook({"m": Price(0.0, 1.0)}, {})
    row = {"input_cost_per_token": 1e-06, "output_cost_per_token": 0}
    first, second = compare(free, PublicMap({"m": row}), 0).differences
    assert (first.ours_usd, first.relative, second.relative) == (0.0, None, -1.0)


def test_prices_that_differ_by_rounding_are_equal():
    assert not compare(
        PriceBook({"m": Price(0.15, 0.6)}, {}),
        PublicMap({"m": {"input_cost_per_token": 1.5e-07, "output_cost_per_token": 6.000000000000001e-07}}),
        0,
    ).differences
    row = {"input_cost_per_token": 1.5e-07, "output_cost_per_token": 6.00001e-07}
    assert len(compare(PriceBook({"m": Price(0.15, 0.6)}, {}), PublicMap({"m": row}), 0).differences) == 1


def test_a_different_shutdown_date_is_reported_if_ours_is_known():
    book = PriceBook({"m": Price(1.0, 1.0), "n": Price(1.0, 1.0)}, {"m-2026-01-01": "m"})
    row = {"input_cost_per_token": 1e-06, "output_cost_per_token": 1e-06}
    table = {"m": {**row, "deprecation_date": "2026-12-11"}, "n": {**row, "deprecation_date": "2026-12-11"}}
    table["m-2026-01-01"] = {**row, "deprecation_date": "2027-01-14"}
    assert not compare(book, PublicMap(table), 0).differences
    (only,) = compare(book, PublicMap(table), 0, shutdown_days={"m": "2027-01-14"}).differences
    assert (only.model, only.finding) == ("m", Finding.DIFFERENT_SHUTDOWN)
    assert "2027-01-14" in only.told and "2026-12-11" in only.told
    assert not compare(book, PublicMap(table), 0, shutdown_days={"m": "2026-12-11"}, models=["m"]).differences
    for odd in ("soon\x1b", 20270114, ["x"]):
        table["m"]["deprecation_date"] = odd
        (only,) = compare(book, PublicMap(table), 0, ["m"], {"m": "2027-01-14"}).differences
        assert "\x1b" not in only.told
    for missing in ("", None):
        table["m"]["deprecation_date"] = missing
        assert not compare(book, PublicMap(table), 0, ["m"], {"m": "2027-01-14"}).differences


def test_shutdown_dates_are_read_from_the_model_table(tmp_path, monkeypatch):
    monkeypatch.setattr("router.commands.pricing.commands.DATA", tmp_path)
    table = {"gpt-5.6-luna": {**LUNA, "deprecation_date": "2026-12-11"}}
    assert check(table, "--models", "gpt-5.6-luna")[0] == 0
    (tmp_path / "models.json").write_text(json.dumps({"models": {"gpt-5.6-luna": {"leaves": "2028-01-01"}, "x": {}}}))
    code, answer = check(table, "--models", "gpt-5.6-luna")
    assert (code, difference_rows(answer)) == (1, [("gpt-5.6-luna", "different_shutdown", None, None, None)])


@pytest.mark.parametrize("row", ["text", 3, [], None])
def test_an_invalid_row_is_reported(row):
    code, answer = check({**equal_map(), "gpt-4o": row})
    assert (code, difference_rows(answer)) == (1, [("gpt-4o", "not_a_price", None, None, None)])


def test_unsupported_prices_are_listed_and_are_no_difference():
    row = {**LUNA, "cache_creation_input_token_cost_above_1hr": 4e-07, "search_context_cost_per_query": {"low": 0.01}}
    code, answer = check({"gpt-5.6-luna": row}, "--models", "gpt-5.6-luna")
    assert code == 0
    assert answer["not_compared"] == {
        "gpt-5.6-luna": ["cache_creation_input_token_cost_above_1hr", "search_context_cost_per_query"]
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not JSON"),
        (b'{"gpt-4o": {"input_cost_per_token": 1e-06', "is not JSON: .* in line 1"),
        (b"[1, 2]", "not an object of models"),
        (b"null", "not an object of models"),
        (b"{}", "has no model"),
        (json.dumps(SPEC).encode(), "has no model"),
        (b'{"gpt-4o": 1}', "has no model"),
        (b'{"a": "\xff"}', "not text in UTF-8"),
        (b'{"a":' + b"[" * 200_000, "nests too deeply"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "is not"),
    ],
)
def test_the_error_of_an_invalid_file_says_what_is_wrong(content, message):
    with pytest.raises(MapError, match=message):
        PublicMap.parse(content)


def command(*arguments: str) -> subprocess.CompletedProcess:
    return run_module("router", "prices", *arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("check", "nowhere.json"), "nowhere.json cannot be read: No such file"),
        (("check", "."), ". cannot be read: Is a directory"),
        (("check", "torn.json"), "torn.json: is not JSON"),
        (("check", "whole.json", "--on", "yesterday"), "--on: expected a day"),
        (("check", "whole.json", "--models", "gpt-5o"), "'gpt-5o' is neither in the price table nor in whole.json"),
        (("show", "gpt-5o"), "'gpt-5o' has no price"),
    ],
)
def test_an_unreadable_input_is_a_one_line_error_with_exit_code_2(tmp_path, arguments, message):
    (tmp_path / "torn.json").write_text('{"gpt-4o": ')
    (tmp_path / "whole.json").write_text(json.dumps({"gpt-4o": {}}))
    result = command(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("router: ") and result.stderr.count("\n") == 1
    assert message in result.stderr


def test_the_command_exits_with_1_and_names_the_differences(tmp_path):
    table = {"gpt-5.6-luna": {**LUNA, "output_cost_per_token_above_272k_tokens_flex": 1e-06}}
    (tmp_path / "map.json").write_text(json.dumps(table))
    result = command("check", "map.json", "--models", "gpt-5.6-luna", "--on", "2026-11-28")
    assert (result.returncode, result.stderr) == (1, "")
    for word in (
        "gpt-5.6-luna",
        "output > 272,000 tokens",
        "flex",
        "0.9",
        "+11.11%",
        "Differences from map.json: 1, in 1 of 1 models",
    ):
        assert word in result.stdout


def test_control_characters_of_the_file_are_escaped(tmp_path):
    row = {**LUNA, "input_cost_per_token": "[red]\x1b[31m", "cost_[bold]\x1b[31m": 1}
    (tmp_path / "map.json").write_text(json.dumps({"gpt-5.6-luna": row}))
    output = run("check", "map.json", "--models", "gpt-5.6-luna").stdout
    assert "[red]" in output and "\x1b" not in output


def test_the_table_is_shown_with_its_days_tiers_and_sources():
    output = run("show", "gpt-5.6-luna", "gpt-4o").stdout
    for word in (
        "2026-07-30",
        "2026-07-09",
        "flex",
        "> 272,000",
        "pull request 35270",
        "OpenAI's published API prices",
    ):
        assert word in output
    lines = [line.split("│") for line in run("show", "gpt-5.6-luna", "--on", "2026-07-29").stdout.splitlines()]
    rows = {line[3].strip(): [cell.strip() for cell in line[4:8]] for line in lines if len(line) > 8}
    assert rows["standard"] == ["1", "0.1", "1.25", "6"] and rows["flex"] == ["0.5", "0.05", "0.625", "3"]
    assert "2026-07-30" not in run("show", "gpt-5.6-luna", "--on", "2026-07-29").stdout
    assert "no price on that day" in run("show", "gpt-5.6-luna", "--on", "2026-07-08").stdout
    stdout = run("show").stdout
    assert all(model in stdout for model in prices(load()).prices)


def test_the_help_has_examples_and_exit_codes():
    output = run("check", "--help").stdout
    assert "python -m router prices check" in output and "Exit codes: 0" in output
    assert "python -m router prices show" in run("show", "--help").stdout

"""Invalid and valid answers, each with a name and its request.

A case has one answer, which a test sends whole or as a stream.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

QUESTION = "Tom has 3 apples and buys 5 more. How many apples does Tom have now?"
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "age": {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}]},
        "tags": {"type": "array", "items": {"enum": ["new", "old"]}, "uniqueItems": True},
        "boss": {"$ref": "#/$defs/boss"},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
    "$defs": {"boss": {"type": ["object", "null"], "properties": {"name": {"type": "string"}}, "required": ["name"]}},
}
CITY = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city"]}
OBJECT = {"response_format": {"type": "json_object"}}
SCHEMA = {"response_format": {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON}}}
TOOLS = {
    "tools": [
        {"type": "function", "function": {"name": "weather", "parameters": CITY}},
        {"type": "function", "function": {"name": "now"}},
        {"type": "custom", "custom": {"name": "shell"}},
    ]
}
R_OBJECT = {"text": {"format": {"type": "json_object"}}}
R_SCHEMA = {"text": {"format": {"type": "json_schema", "name": "person", "schema": PERSON}}}
R_TOOLS = {
    "tools": [
        {"type": "function", "name": "weather", "parameters": CITY},
        {"type": "custom", "name": "shell"},
        {"type": "web_search"},
    ]
}


@dataclass(frozen=True)
class Case:
    """A request and an answer to it; `fault` names the answer's fault, "" for a valid answer."""

    name: str
    fault: str
    api: str  # chat, responses or completions
    body: dict[str, Any]
    choices: list[dict[str, Any]] = field(default_factory=list)  # of chat and completions
    output: list[dict[str, Any]] = field(default_factory=list)  # of responses
    finish: str = "stop"
    tokens: int = 20

    def request(self, model: str) -> dict[str, Any]:
        """The request body for a model."""
        input_fields = {"chat": {"messages": [{"role": "user", "content": QUESTION}]}, "responses": {"input": QUESTION}}
        return {"model": model, **input_fields.get(self.api, {"prompt": QUESTION}), **self.body}


def reply(text: str | None, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, "refusal": None, **more}


def tool_call(name: str, arguments: str, index: int = 0) -> dict[str, Any]:
    return {"id": f"call_{index}", "type": "function", "function": {"name": name, "arguments": arguments}}


def tool_calls(*calls: tuple[str, str]) -> dict[str, Any]:
    return reply(None, tool_calls=[tool_call(name, arguments, index) for index, (name, arguments) in enumerate(calls)])


def custom_tool_call(name: str, text: str) -> dict[str, Any]:
    return reply(None, tool_calls=[{"id": "call_0", "type": "custom", "custom": {"name": name, "input": text}}])


def text_item(text: str) -> dict[str, Any]:
    return {
        "type": "message",
        "role": "assistant",
        "content": [{"type": "output_text", "text": text, "annotations": []}],
    }


def refusal_item(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": text}]}


def function_call_item(name: str, arguments: str) -> dict[str, Any]:
    return {"type": "function_call", "call_id": "call_0", "name": name, "arguments": arguments}


def chat(
    name: str, fault: str, message: dict[str, Any], body: Any = None, finish: str = "stop", tokens: int = 20
) -> Case:
    finish = "tool_calls" if "tool_calls" in message and finish == "stop" else finish
    return Case(name, fault, "chat", body or {}, [message], finish=finish, tokens=tokens)


def responses(
    name: str, fault: str, output: Any, body: Any = None, finish: str = "completed", tokens: int = 20
) -> Case:
    return Case(name, fault, "responses", body or {}, output=output, finish=finish, tokens=tokens)


def code_block(language: str, code: str) -> str:
    return f"So:\n```{language}\n{code}\n```\n"


GOOD = json.dumps({"name": "Ada", "age": 36})
REQUIRED = {**TOOLS, "tool_choice": "required"}
NAMED = {**TOOLS, "tool_choice": {"type": "function", "function": {"name": "weather"}}}
HERE = '{"city": "Paris"}'

BROKEN = [
    chat("no text", "empty", reply("")),
    chat("null", "empty", reply(None)),
    chat("blanks", "empty", reply(" \n\t ")),
    Case("no choices", "empty", "chat", {}, []),
    Case("the second of two is empty", "empty", "chat", {"n": 2}, [reply("8"), reply("")]),
    chat("no calls in the list of calls", "empty", {**reply(None), "tool_calls": []}, TOOLS),
    chat("refused", "refused", reply(None, refusal="I can't help with that.")),
    chat("refused in the place of JSON", "refused", reply(None, refusal="No."), SCHEMA),
    Case("one of two refused", "refused", "chat", {"n": 2}, [reply("8"), reply(None, refusal="No.")]),
    chat("cut off without a limit", "length", reply("Tom has"), finish="length"),
    chat("cut off before the client's limit", "length", reply("Tom has"), {"max_tokens": 4000}, "length", 900),
    chat("JSON that is cut off", "length", reply('{"name": "A'), SCHEMA, "length"),
    chat("filtered", "content_filter", reply(""), finish="content_filter"),
    chat("filtered after the beginning", "content_filter", reply("Tom"), finish="content_filter"),
    chat("prose for JSON", "not_json", reply("Tom has 8."), OBJECT),
    chat("JSON in a fence", "not_json", reply("```json\n{}\n```"), OBJECT),
    chat("JSON with prose before it", "not_json", reply('Here: {"a": 1}'), OBJECT),
    chat("an array for an object", "not_json", reply("[1]"), OBJECT),
    chat("single quotes", "not_json", reply("{'a': 1}"), OBJECT),
    chat("a comma too many", "not_json", reply('{"a": 1,}'), OBJECT),
    chat("an end that is missing", "not_json", reply('{"a": [1}'), SCHEMA),
    chat("NaN", "not_json", reply('{"a": NaN}'), OBJECT),
    chat("two objects", "not_json", reply('{"a": 1}{"a": 2}'), OBJECT),
    chat("a property is missing", "schema", reply('{"name": "Ada"}'), SCHEMA),
    chat("a number for a text", "schema", reply('{"name": 5, "age": 1}'), SCHEMA),
    chat("a text for a number", "schema", reply('{"name": "Ada", "age": "36"}'), SCHEMA),
    chat("a negative age", "schema", reply('{"name": "Ada", "age": -1}'), SCHEMA),
    chat("a property too many", "schema", reply('{"name": "Ada", "age": 1, "x": 1}'), SCHEMA),
    chat("a name of no characters", "schema", reply('{"name": "", "age": 1}'), SCHEMA),
    chat("a tag of no list", "schema", reply('{"name": "A", "age": 1, "tags": ["blue"]}'), SCHEMA),
    chat("a tag twice", "schema", reply('{"name": "A", "age": 1, "tags": ["new", "new"]}'), SCHEMA),
    chat("behind a reference", "schema", reply('{"name": "A", "age": 1, "boss": {}}'), SCHEMA),
    chat("an array for the schema's object", "schema", reply("[]"), SCHEMA),
    chat("a tool that is not there", "unknown_tool", tool_calls(("wether", HERE)), TOOLS),
    chat("a tool where none is offered", "unknown_tool", tool_calls(("weather", HERE))),
    chat("the second call is of no tool", "unknown_tool", tool_calls(("weather", HERE), ("mail", "{}")), TOOLS),
    chat("another tool than the one chosen", "unknown_tool", tool_calls(("now", "{}")), NAMED),
    chat("a custom tool that is not there", "unknown_tool", custom_tool_call("bash", "ls"), TOOLS),
    chat("a function called as a custom tool", "unknown_tool", custom_tool_call("weather", HERE), TOOLS),
    chat(
        "a tool though none was to be called",
        "unknown_tool",
        tool_calls(("now", "{}")),
        {**TOOLS, "tool_choice": "none"},
    ),
    chat("arguments that are no JSON", "tool_arguments", tool_calls(("weather", "city=Paris")), TOOLS),
    chat("arguments that end early", "tool_arguments", tool_calls(("weather", '{"city": "Par')), TOOLS),
    chat("an argument is missing", "tool_arguments", tool_calls(("weather", '{"days": 2}')), TOOLS),
    chat("no arguments at all", "tool_arguments", tool_calls(("weather", "")), TOOLS),
    chat("an argument of another type", "tool_arguments", tool_calls(("weather", '{"city": 5}')), TOOLS),
    chat("arguments in a list", "tool_arguments", tool_calls(("now", '["Paris"]')), TOOLS),
    chat("no call though one is required", "no_tool_call", reply("It is sunny."), REQUIRED),
    chat("no call of the one chosen", "no_tool_call", reply("It is sunny."), NAMED),
    chat("Python without its end", "python_syntax", reply(code_block("python", "print(1"))),
    chat("Python without a colon", "python_syntax", reply(code_block("py", "if x == 1\n    y = 2"))),
    chat("JSON in a fence that does not parse", "json_syntax", reply(code_block("json", '{"a": 1,}'))),
    responses("a response without output", "empty", []),
    responses("nothing but reasoning", "empty", [{"type": "reasoning", "summary": []}]),
    responses("a response that is refused", "refused", [refusal_item("No.")]),
    responses("a response that is cut off", "length", [text_item("Tom has")], finish="max_output_tokens"),
    responses("a response that is filtered", "content_filter", [text_item("")], finish="content_filter"),
    responses("a response that is no JSON", "not_json", [text_item("Tom has 8.")], R_OBJECT),
    responses("a response of another schema", "schema", [text_item('{"name": "Ada"}')], R_SCHEMA),
    responses("a response that calls no tool of ours", "unknown_tool", [function_call_item("mail", "{}")], R_TOOLS),
    responses(
        "a response with wrong arguments", "tool_arguments", [function_call_item("weather", '{"days": 1}')], R_TOOLS
    ),
    responses("a response with broken Python", "python_syntax", [text_item(code_block("python", "x = ="))]),
    Case("a completion without text", "empty", "completions", {}, [{"text": ""}]),
    Case(
        "a completion that is filtered", "content_filter", "completions", {}, [{"text": "T"}], finish="content_filter"
    ),
]

NOVA = reply('{"name": "Zoë \\ud83d\\ude00 \\u00e9", "age": null}')
VALID = [
    chat("a word", "", reply("8")),
    chat("another script", "", reply("リンゴは8個です。🍎")),
    chat("a zero", "", reply("0")),
    chat("a full stop", "", reply(".")),
    chat("an empty object", "", reply("{}"), OBJECT),
    chat("an object with blanks around it", "", reply('\n  {"a": 1}\n'), OBJECT),
    chat("a deep object", "", reply('{"a":' * 30 + "1" + "}" * 30), OBJECT),
    chat("a key twice", "", reply('{"a": 1, "a": 2}'), OBJECT),
    chat("large numbers", "", reply('{"a": 1e400, "b": 123456789012345678901234567890}'), OBJECT),
    chat("half a pair of surrogates", "", reply('{"a": "\\ud83d"}'), OBJECT),
    chat("a number of 5,000 digits", "", reply('{"a": ' + "9" * 5000 + "}"), OBJECT),
    chat("the schema", "", reply(GOOD), SCHEMA),
    chat("the schema with unicode", "", NOVA, SCHEMA),
    chat("a whole number written as a float", "", reply('{"name": "A", "age": 36.0}'), SCHEMA),
    chat("no boss", "", reply('{"name": "A", "age": 1, "boss": null}'), SCHEMA),
    chat("no tags", "", reply('{"name": "A", "age": 1, "tags": []}'), SCHEMA),
    chat("two tags", "", reply('{"name": "A", "age": 1, "tags": ["old", "new"]}'), SCHEMA),
    chat("prose where JSON is not asked for", "", reply("{not JSON}"), {"response_format": {"type": "text"}}),
    chat("a call", "", tool_calls(("weather", HERE)), TOOLS),
    chat(
        "parallel calls",
        "",
        tool_calls(("weather", HERE), ("weather", '{"city": "Rome", "days": 2}'), ("now", "{}")),
        TOOLS,
    ),
    chat("a call with text before it", "", {**tool_calls(("now", "{}")), "content": "Let me look."}, TOOLS),
    chat("arguments with unicode", "", tool_calls(("weather", '{"city": "Z\\u00fcrich 🏔"}')), TOOLS),
    chat("no arguments where none are needed", "", tool_calls(("now", "")), TOOLS),
    chat("arguments beyond the schema's", "", tool_calls(("weather", '{"city": "Rome", "unit": "C"}')), TOOLS),
    chat("a custom tool", "", custom_tool_call("shell", "ls | wc"), TOOLS),
    chat("text though tools are offered", "", reply("It is sunny."), TOOLS),
    chat("a required call", "", tool_calls(("now", "{}")), REQUIRED),
    chat("the call that is chosen", "", tool_calls(("weather", HERE)), NAMED, "stop"),
    chat("a call where JSON is asked for", "", tool_calls(("weather", HERE)), {**TOOLS, **SCHEMA}),
    chat(
        "the older form of a call",
        "",
        reply(None, function_call={"name": "f", "arguments": "{}"}),
        {"functions": [{"name": "f"}]},
    ),
    chat("a refusal in plain text", "", reply("I'm sorry, but I can't help with that.")),
    chat("a refusal of no text", "", reply("8", refusal="")),
    chat("cut off by the client", "", reply("Tom"), {"max_tokens": 1}, "length", 1),
    chat("cut off by the client's other limit", "", reply("Tom"), {"max_completion_tokens": 20}, "length", 20),
    chat("JSON that the client cut off", "", reply('{"na'), {**SCHEMA, "max_tokens": 5}, "length", 5),
    chat("nothing before the client's stop word", "", reply(""), {"stop": ["\n"]}),
    chat("a fence that the client's stop word ends", "", reply("```python\nx = (1,"), {"stop": "```"}),
    Case("two answers", "", "chat", {"n": 2}, [reply("8"), reply("Eight.")]),
    chat("Python", "", reply(code_block("python", "def f(x):\n    return x"))),
    chat("an ellipsis for a body", "", reply(code_block("python", "def f(x):\n    ..."))),
    chat("an ellipsis for arguments", "", reply(code_block("python", "def f(x, ...):\n    pass"))),
    chat("a placeholder", "", reply(code_block("python", "key = <your key>"))),
    chat("a session", "", reply(code_block("python", ">>> 1 +\n... 1\n2"))),
    chat("a notebook", "", reply(code_block("python", "!pip install x\n%time f()\nimport x"))),
    chat("a method out of its class", "", reply(code_block("python", "    def f(self):\n        return 1"))),
    chat("await and return at the top", "", reply(code_block("python", "await f()\nreturn 1"))),
    chat("Python 2", "", reply(code_block("python", 'print "8"'))),
    chat("a traceback", "", reply(code_block("python", "Traceback (most recent call last):\n  File x"))),
    chat("an f-string of Python 3.12", "", reply(code_block("python", 'f"{x["a"]}"'))),
    chat("an empty fence", "", reply(code_block("python", ""))),
    chat("a fence of another language", "", reply(code_block("js", "let x = {"))),
    chat("a fence without a language", "", reply(code_block("", "x = ("))),
    chat("a fence within a fence", "", reply("````md\n```python\nx = (\n```\n````\n")),
    chat("a fence in a list", "", reply("1. so\n   ```python\n   if x:\n       y\n   ```\n")),
    chat("a fence in a quotation", "", reply("> ```python\n> x = 1\n> ```\n")),
    chat("code between backticks", "", reply("```x = (```")),
    chat("JSON in a fence", "", reply(code_block("json", '{"a": [1, null]}'))),
    chat("two values in a fence", "", reply(code_block("json", '{"a": 1}\n{"a": 2}'))),
    chat("JSON with something left out", "", reply(code_block("json", '{"a": 1, ...}'))),
    chat(
        "an answer in sound", "", {**reply(None), "audio": {"id": "a", "data": "", "expires_at": 1, "transcript": "8"}}
    ),
    responses("a response", "", [text_item("8")]),
    responses("a response with reasoning before it", "", [{"type": "reasoning", "summary": []}, text_item("8")]),
    responses("a response in JSON", "", [text_item(GOOD)], R_SCHEMA),
    responses("a comment before the JSON", "", [text_item("Let me think."), text_item(GOOD)], R_SCHEMA),
    responses("a response that calls", "", [function_call_item("weather", HERE)], R_TOOLS),
    responses(
        "two calls in a response",
        "",
        [function_call_item("weather", HERE), function_call_item("weather", HERE)],
        R_TOOLS,
    ),
    responses("a response that refuses in plain text", "", [text_item("I can't help with that.")]),
    responses(
        "a response that the client cut off", "", [text_item("T")], {"max_output_tokens": 16}, "max_output_tokens", 16
    ),
    responses("an image", "", [{"type": "image_generation_call", "result": "aGk=", "status": "completed"}]),
    Case("a completion", "", "completions", {}, [{"text": " 8"}]),
    Case("a completion of code", "", "completions", {}, [{"text": "```python\nx = ("}]),
    Case("a completion of the default length", "", "completions", {}, [{"text": "Tom"}], finish="length", tokens=16),
]

"""The reference of the HTTP API, from the OpenAPI document that the router serves."""

from __future__ import annotations

from typing import Any

from router.endpoints.openapi_document import document

HEAD = """# HTTP API

The router serves this description as an OpenAPI 3.1 document at `GET /openapi.json`. The page is generated from it.

A request presents its key as `Authorization: Bearer KEY` or `api-key: KEY`. A router without keys needs none and serves
loopback only. [Headers](headers.md) explains the routing headers and [Compatibility](compatibility.md) each difference
from OpenAI's API. Errors of the router have OpenAI's form:

```json
{"error": {"message": "...", "type": "invalid_request_error", "param": "model", "code": "model_not_found"}}
```
"""


def page() -> str:
    """The page, in Markdown."""
    described = document()
    parts = [HEAD]
    for tag in described["tags"]:
        parts.append(f"## {tag['name']}\n\n{tag['description']}\n")
        for path, item in described["paths"].items():
            for method, operation in item.items():
                if method != "parameters" and operation["tags"] == [tag["name"]]:
                    parts.append(_operation(described, path, method, operation, item.get("parameters", [])))
    return "\n".join(parts)


def _operation(described: dict[str, Any], path: str, method: str, operation: dict[str, Any], shared: list[Any]) -> str:
    parts = [f"### {operation['summary']}\n", f"`{method.upper()} {path}`\n", f"{operation['description']}\n"]
    parameters = [*shared, *operation.get("parameters", [])]
    if parameters:
        parts += ["| parameter | in | meaning |", "| --- | --- | --- |"]
        parts += [f"| `{each['name']}` | {each['in']} | {each['description']} |" for each in parameters]
        parts.append("")
    if body := operation.get("requestBody"):
        parts += ["**Body**\n", _fields(described, body["content"]["application/json"]["schema"])]
    for status, response in operation["responses"].items():
        if "$ref" not in response and (content := response["content"].get("application/json")):
            parts += [f"**Answer {status}**\n", _fields(described, content["schema"])]
    if failures := [status for status, response in operation["responses"].items() if "$ref" in response]:
        words = described["components"]["responses"]
        parts += ["| status | when |", "| --- | --- |"]
        parts += [f"| {status} | {words[status]['description']} |" for status in failures]
        parts.append("")
    return "\n".join(parts)


def _fields(described: dict[str, Any], schema: dict[str, Any]) -> str:
    """The fields of an object as a table."""
    name = schema.get("$ref", "").rpartition("/")[2]
    found = described["components"]["schemas"].get(name, schema)
    words = found.get("description", "")
    rows = [
        f"| `{field}` | {_type(form)} | {'yes' if field in found.get('required', ()) else ''} |"
        for field, form in found.get("properties", {}).items()
    ]
    if not rows:
        return f"{words}\n"
    return "\n".join([*([words, ""] if words else []), "| field | type | required |", "| --- | --- | --- |", *rows, ""])


def _type(form: dict[str, Any]) -> str:
    if "$ref" in form:
        return form["$ref"].rpartition("/")[2]
    if "enum" in form:
        return ", ".join(f"`{value}`" for value in form["enum"])
    if "const" in form:
        return f"`{form['const']}`"
    if "anyOf" in form:
        return " or ".join(_type(each) for each in form["anyOf"])
    given = form.get("type", "any")
    name = " or ".join(given) if isinstance(given, list) else given
    return f"{name} of {_type(form['items'])}" if given == "array" and "items" in form else name

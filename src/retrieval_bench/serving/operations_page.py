"""`/docs`: what the API offers, from its own OpenAPI description. No script, and nothing from the network."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from retrieval_bench.serving.rendering import rendered

router = APIRouter()


@router.get("/docs", include_in_schema=False)
async def operations_page(request: Request) -> HTMLResponse:
    """Every operation, with what it takes and what it answers."""
    description: dict[str, Any] = request.app.openapi()
    operations = [
        {
            "path": path,
            "method": method.upper(),
            "takes": _takes(operation),
            "answers": _answers(operation),
            **operation,
        }
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    ]
    schemas = description.get("components", {}).get("schemas", {})
    about = {"info": description["info"], "operations": operations, "schemas": _fields(schemas)}
    return HTMLResponse(rendered("operations.html", **about))


def _takes(operation: dict[str, Any]) -> list[dict[str, str]]:
    """Each parameter and each field of the form: name, where, kind, about."""
    found = [
        {
            "name": one["name"],
            "where": one["in"],
            "kind": one.get("schema", {}).get("type", "string"),
            "about": one.get("description", ""),
        }
        for one in operation.get("parameters", [])
    ]
    for content in operation.get("requestBody", {}).get("content", {}).values():
        schema = content["schema"]
        for name, facts in schema.get("properties", {}).items():
            kind = "file" if facts.get("format") == "binary" else facts.get("type", "string")
            where = "form, needed" if name in schema.get("required", []) else "form"
            found.append({"name": name, "where": where, "kind": kind, "about": facts.get("description", "")})
    return found


def _answers(operation: dict[str, Any]) -> str:
    for content in operation.get("responses", {}).get("200", {}).get("content", {}).values():
        return _kind(content.get("schema", {}))
    return ""


def _kind(schema: dict[str, Any]) -> str:
    """A type as one writes it: "list of Hit", "text or nothing"."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(_kind(one) for one in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}".removesuffix(" of ")
    if schema.get("type") == "null":
        return "nothing"
    return str(schema.get("type", ""))


def _fields(schemas: dict[str, Any]) -> list[dict[str, Any]]:
    hidden = ("HTTPValidationError", "ValidationError")
    return [
        {
            "name": name,
            "about": schema.get("description", ""),
            "fields": [(field, _kind(facts)) for field, facts in schema.get("properties", {}).items()],
        }
        for name, schema in sorted(schemas.items())
        if name not in hidden
    ]

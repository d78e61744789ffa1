"""An example that fits a JSON schema, put together from the examples of its fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]

OF_FORMAT = {"date": "2026-11-21", "date-time": "2026-11-21T13:00:00.000+00:00"}


def sample(schema: Json, components: Mapping[str, Json]) -> Any:
    """A value that the schema accepts. components: what its references lead to, by name."""
    if "$ref" in schema:
        return sample(components[schema["$ref"].rpartition("/")[2]], components)
    if "anyOf" in schema and not schema.get("examples"):
        return sample(schema["anyOf"][0], components)
    for found in (schema.get("examples"), [schema["const"]] if "const" in schema else None, schema.get("enum")):
        if found:
            return found[0]
    return schema["default"] if "default" in schema else _of_type(schema, components)


def _of_type(schema: Json, components: Mapping[str, Json]) -> Any:
    kind = schema.get("type")
    if kind == "object":
        return {name: sample(one, components) for name, one in schema.get("properties", {}).items()}
    if kind == "array":
        return [sample(schema["items"], components)] if "items" in schema else []
    if kind == "string":
        return OF_FORMAT.get(schema.get("format", ""), "x" * schema.get("minLength", 0) or "text")
    return {"integer": schema.get("minimum", 1), "number": schema.get("minimum", 1), "boolean": True}.get(str(kind))

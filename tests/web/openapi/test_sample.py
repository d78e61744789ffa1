"""An example that is put together fits the schema that it is of."""

from __future__ import annotations

from tests.support.rows import each_row
from web.openapi.sample import sample

COMPONENTS = {"Size": {"type": "integer", "minimum": 3}}


@each_row(
    ("schema", "value"),
    [
        ({"type": "string"}, "text"),
        ({"type": "string", "minLength": 2}, "xx"),
        ({"type": "string", "format": "date"}, "2026-11-21"),
        ({"type": "string", "examples": ["a", "b"]}, "a"),
        ({"examples": [None], "anyOf": [{"type": "integer"}, {"type": "null"}]}, None),
        ({"anyOf": [{"type": "boolean"}, {"type": "null"}]}, True),
        ({"const": "x"}, "x"),
        ({"enum": ["a", "b"]}, "a"),
        ({"type": "integer", "default": 0}, 0),
        ({"type": "array", "items": {"$ref": "#/components/schemas/Size"}}, [3]),
        ({"type": "array"}, []),
        ({"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "null"}}}, {"a": 1, "b": None}),
        ({"type": "object"}, {}),
    ],
)
def test_a_sample_is_made_of_what_the_schema_says(schema, value):
    assert sample(schema, COMPONENTS) == value

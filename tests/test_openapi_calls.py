"""Every path that carries model calls is in the document."""

from __future__ import annotations

import openapi_calls
from proxy_wsgi import PATHS


def test_every_path_of_the_data_plane_is_described():
    described = openapi_calls.paths()
    assert set(described) == set(PATHS)
    assert all(set(item) == {"post"} for item in described.values())


def test_aliases_differ_in_nothing_but_their_names():
    described = [item["post"] | {"operationId": None} for item in openapi_calls.paths().values()]
    summaries = {one["summary"] for one in described}
    assert len({str(one) for one in described}) == len(summaries)


def test_what_can_be_streamed_says_how():
    for path, item in openapi_calls.paths().items():
        content = item["post"]["responses"]["200"]["content"]
        assert ("text/event-stream" in content) == ("embeddings" not in path)
        assert all(
            line.startswith(("data: ", "event: ", ""))
            for line in content.get("text/event-stream", {}).get("example", "").split("\n")
        )

"""Every path that carries model calls is in the document."""

from __future__ import annotations

from serving.door import PATHS
from web.openapi import model_calls


def test_every_path_of_the_data_plane_is_described():
    described = model_calls.paths()
    for path in PATHS:
        twin = path.removeprefix("/api") if path.startswith("/api/v1/") else path
        servers = [server["url"] for server in described[twin]["post"].get("servers", [])]
        assert servers == (["/", "/api"] if twin.startswith("/v1/") else [])
    assert set(described) <= set(PATHS)
    assert all(set(item) == {"post"} for item in described.values())


def test_aliases_differ_in_nothing_but_their_names():
    described = [item["post"] | {"operationId": None, "servers": None} for item in model_calls.paths().values()]
    summaries = {one["summary"] for one in described}
    assert len({str(sorted(one.items())) for one in described}) == len(summaries)


def test_what_can_be_streamed_says_how():
    for path, item in model_calls.paths().items():
        responses = item["post"]["responses"]
        content = (responses.get("200") or responses["202"])["content"]
        unstreamed = {"embeddings", "rerank", "speech", "transcriptions", "videos"}
        never = PATHS[path].name in unstreamed or "count_tokens" in path
        assert ("text/event-stream" in content) != never
        assert all(
            line.startswith(("data: ", "event: ", ""))
            for line in content.get("text/event-stream", {}).get("example", "").split("\n")
        )

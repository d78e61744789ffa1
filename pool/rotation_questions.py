"""Which shared keys OpenRouter does not accept: asked with the keys themselves at each pass of the rotation.

Of keys that people brought its list says nothing, and of those that it lists gateways may know better: they report
which ones they find refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from foundation.crypto import SealBroken
from pool.life import PoolKeyRow, PoolKeySource, PoolKeyState
from replicas.processes import ProcessReport
from upstream.openrouter.management_api import ManagementApi, ManagementError

MAX_ASKED = 50  # keys in one pass, those first that gateways find refused
MAX_SILENT = 2  # questions without an answer: then OpenRouter is not well, and gateways' word counts


def refused_keys(
    rows: Iterable[PoolKeyRow],
    texts: Mapping[int, str | SealBroken],
    reports: Sequence[ProcessReport],
    api: ManagementApi,
    meanwhile: Callable[[], object],
) -> frozenset[int]:
    """Ids of those rows in use. texts: by id. meanwhile: called after each question, which may take a while."""
    suspects = {row_id for one in reports for row_id, told in one.keys.items() if told.get("health") == "suspect"}
    in_use = [row for row in rows if row.state is PoolKeyState.ACTIVE and row.enabled and row.owner_id is None]
    to_ask = [row for row in in_use if row.source is not PoolKeySource.MINTED or str(row.id) in suspects]
    to_ask.sort(key=lambda row: str(row.id) not in suspects)
    refused = {row.id for row in in_use if str(row.id) in suspects}
    silent = 0
    for row in to_ask[:MAX_ASKED]:
        text = texts.get(row.id)
        if not isinstance(text, str) or silent >= MAX_SILENT:
            continue
        try:
            told = api.ask(text)
        except ManagementError:
            silent += 1
        else:
            is_good = told is not None and not told.is_management  # a management key carries no calls
            refused = refused - {row.id} if is_good else refused | {row.id}
        meanwhile()
    return frozenset(refused)

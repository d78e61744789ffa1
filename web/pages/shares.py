"""Who spent what, as a chart, a table and a file: one's own usage, and for operators everybody's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from flask import Response, request

from billing.reports import export
from billing.reports.shares_asked import By, Metric
from web.api.shares import EverybodysSharesQuery, SharesQuery, everybodys_shares, shares_shown
from web.pages.forms import found, here, query_of
from web.pages.operator import for_auditors
from web.pages.requests import presets
from web.pages.sparkline import line_path
from web.pages.stacked import HEIGHT, WIDTH, stacked_paths
from web.pages.views import Visitor, for_users, page_blueprint, show

routes = page_blueprint("shares_pages")

TIMES = {metric.value for metric in Metric if metric.is_time}
COLUMNS = ["name", "requests", "errors", "prompt_tokens", "completion_tokens", "cost_usd"]


@routes.get("/usage")
@for_users
def own(visitor: Visitor) -> Response:
    """One's own."""
    kinds = [one for one in By if one is not By.USER]
    return _page("usage.html", "/usage", kinds, lambda: _own(visitor))


@routes.get("/usage.csv")
@for_users
def own_csv(visitor: Visitor) -> Response:
    """The table of it as a file."""
    return _file(_own(visitor))


@routes.get("/operator/usage")
@for_auditors
def everybodys() -> Response:
    """Everybody's."""
    return _page("operator_usage.html", "/operator/usage", list(By), _everybodys)


@routes.get("/operator/usage.csv")
@for_auditors
def everybodys_csv() -> Response:
    """The table of it as a file."""
    return _file(_everybodys())


def _own(visitor: Visitor) -> dict[str, Any]:
    return shares_shown(query_of(SharesQuery).asked(visitor.user.id))


def _everybodys() -> dict[str, Any]:
    return everybodys_shares(query_of(EverybodysSharesQuery))


def _page(template: str, path: str, kinds: Sequence[By], read: Callable[[], dict[str, Any]]) -> Response:
    shown = found(read)
    drawn = [one["amounts"] for one in shown.get("series", [])] + [shown.get("others", [])]
    is_time = shown.get("metric") in TIMES
    form: dict[str, Any] = {"path": path, "kinds": kinds, "metrics": list(Metric), "presets": presets()}
    most = max(map(max, filter(None, drawn)), default=0) if is_time else _highest(drawn)
    paths = [line_path(one, most) for one in drawn[:-1]] if is_time else stacked_paths(drawn)
    chart = {"paths": paths, "width": WIDTH, "height": HEIGHT, "most": most, "is_lines": is_time}
    return show(template, here=here, chart=chart, given=request.args, **form, **shown)


def _highest(series: list[list[int]]) -> int:
    return max(map(sum, zip(*series, strict=True)), default=0)


def _file(shown: dict[str, Any]) -> Response:
    columns = [*COLUMNS, "p50_ms", "p95_ms"] if shown["metric"] in TIMES else COLUMNS
    return Response(_lines(columns, shown["items"]), headers=export.headers("csv", "usage"))


def _lines(columns: list[str], items: list[dict[str, Any]]) -> Iterator[bytes]:
    yield export.csv_lines([[*columns, *(f"{name}_before" for name in columns[1:])]])
    yield export.csv_lines(
        [*(one[name] for name in columns), *(one["before"][name] for name in columns[1:])] for one in items
    )

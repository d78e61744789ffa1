"""The dashboard and the alert rules name metrics and labels that exist, and nothing else."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from foundation.errors import ERROR_TYPES, AppError
from metrics.families import FAMILIES, GAUGES, PREFIX
from tests.support.gateway import ROOT

DASHBOARD = json.loads((ROOT / "deploy/grafana/openrouter-proxy.json").read_text())
RULES = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())
SELECTOR = re.compile(rf"{PREFIX}(\w+)(?:\{{([^}}]*)\}})?")
OF_PROMETHEUS = {"job", "instance", "le"}


def labels_of():
    """The labels of each sample, by its name."""
    found = {"build_info": {"version"}} | {gauge.name: set(gauge.labels) for gauge in GAUGES}
    for family in FAMILIES:
        endings = ("_bucket", "_sum", "_count") if family.is_histogram else ("_total",)
        found |= {family.name + ending: set(family.labels) for ending in endings}
    return found


def expressions():
    yield from ((rule["alert"], rule["expr"]) for group in RULES["groups"] for rule in group["rules"])
    yield from ((panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel["targets"])
    yield from ((one["name"], one["query"]["query"]) for one in DASHBOARD["templating"]["list"][1:])


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_an_expression_names_what_exists(where, expression):
    known = labels_of()
    found = SELECTOR.findall(expression)
    assert found or "up{" in expression
    for name, matchers in found:
        assert name in known
        assert set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers)) <= known[name] | OF_PROMETHEUS
    of_all = set().union(*(known[name] for name, _ in found)) | OF_PROMETHEUS if found else OF_PROMETHEUS
    grouped = {label.strip() for by in re.findall(r"by \(([^)]*)\)", expression) for label in by.split(",")}
    assert grouped <= of_all
    assert expression.count("(") == expression.count(")")
    assert "histogram_quantile" not in expression or "le" in grouped


def test_every_metric_is_on_the_dashboard_or_in_an_alert_and_in_the_document():
    shown = {name for _, expression in expressions() for name, _ in SELECTOR.findall(expression)}
    document = (ROOT / "docs/metrics.md").read_text()
    for one in (*FAMILIES, *GAUGES):
        known = {name for name in labels_of() if name.removesuffix("_total").removesuffix("_bucket") == one.name}
        assert known & shown or one.name == "journal_segments", one.name
        assert re.search(rf"`{one.name}(_total)?`", document), one.name


def test_alerts_have_words_and_a_severity_and_only_labels_that_they_keep():
    rules = [rule for group in RULES["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert rule["labels"]["severity"] in {"critical", "warning"}
        summary = rule["annotations"]["summary"]
        for label in re.findall(r"\$labels\.(\w+)", summary):
            grouped = re.findall(r"by \(([^)]*)\)", rule["expr"])
            assert all(label in by for by in grouped), rule["alert"]


def test_errors_that_wake_somebody_exist():
    [rule] = [rule for group in RULES["groups"] for rule in group["rules"] if rule["alert"] == "CallsFail"]
    types = {*ERROR_TYPES.values(), *(one.type for one in all_errors(AppError))}
    for pattern in re.search(r'type=~"([^"]+)"', rule["expr"])[1].split("|"):
        assert any(re.fullmatch(pattern, one) for one in types), pattern


def all_errors(parent):
    yield parent
    for child in parent.__subclasses__():
        yield from all_errors(child)


def test_the_dashboard_fits_its_grid():
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    for panel in DASHBOARD["panels"]:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        assert panel["datasource"]["uid"] == "${datasource}"


def test_prometheus_is_given_the_rules_and_a_token_from_a_file():
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    assert config["rule_files"] == ["alerts.yml"]
    [job] = config["scrape_configs"]
    assert job["job_name"] == "openrouter-proxy", "which the rule GatewayDown names"
    assert job["authorization"] == {"credentials_file": "/etc/prometheus/metrics_token"}

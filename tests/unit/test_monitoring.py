"""The dashboard and the alert rules: of metrics that there are, with labels that they have."""

import json
import re
from pathlib import Path

import promql_parser
import pytest
import yaml

from raymeta.observability.metrics import METRICS

CLUSTER = Path(__file__).parents[2] / "cluster"
DASHBOARD = json.loads((CLUSTER / "grafana" / "raymeta.json").read_text())
ALERTS = yaml.safe_load((CLUSTER / "alerts.yaml").read_text())
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
EXPRESSIONS = QUERIES + [rule["expr"] for rule in RULES]

SERIES = {name: metric for metric in METRICS for name in metric.series()}
RAYS_OWN = {"ray_serve_deployment_queued_queries"}
ADDED = {"le", "WorkerId"}


def names_in(expression: str) -> set[str]:
    return set(re.findall(r"\bray_[a-z_]+", expression))


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_is_promql_about_metrics_that_there_are(expression: str) -> None:
    # Grafana puts a duration there
    promql_parser.parse(expression.replace("$__rate_interval", "5m"))
    names = names_in(expression)
    assert names
    assert names <= {*SERIES, *RAYS_OWN}
    known = {label for name in names - RAYS_OWN for label in SERIES[name].labels} | ADDED
    asked = set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)\s*\"", expression))
    for labels in re.findall(r"\b(?:by|ignoring) \(([^)]*)\)", expression):
        asked |= {label.strip() for label in labels.split(",")}
    assert asked <= known


def test_what_is_rated_is_counted() -> None:
    for expression in EXPRESSIONS:
        for name in re.findall(r"rate\((\w+)", expression):
            assert SERIES[name].kind in ("counter", "histogram"), name


def test_the_dashboard_shows_every_metric() -> None:
    shown = {SERIES[name].name for query in QUERIES for name in names_in(query) - RAYS_OWN}
    assert shown == {metric.name for metric in METRICS}


def test_the_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_to_do(rule: dict[str, object]) -> None:
    assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
    assert set(rule["annotations"]) == {"summary", "action"}  # type: ignore[call-overload]
    assert rule["labels"]["severity"] in ("page", "ticket")  # type: ignore[index]

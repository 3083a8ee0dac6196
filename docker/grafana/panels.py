"""Kinds of panels: each with a unit, a description, and what it says without data."""

from __future__ import annotations

from typing import Protocol, Self, TypeVar

from grafana_foundation_sdk.builders import common as parts
from grafana_foundation_sdk.builders import stat, table, timeseries
from grafana_foundation_sdk.builders.dashboard import QueryVariable, ThresholdsConfig
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common, dashboard, units
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = dashboard.DataSourceRef(type_val="prometheus", uid="${datasource}")
RATE = "[$__rate_interval]"
GREEN, ORANGE, RED = "green", "orange", "red"

Thresholds = tuple[tuple[float | None, str], ...]
AnyPanel = Builder[dashboard.Panel]
PanelT = TypeVar("PanelT", bound="_Panel")


class _Panel(Protocol):
    """What the builders of all kinds of panels have."""

    def title(self, title: str) -> Self: ...
    def description(self, description: str) -> Self: ...
    def datasource(self, datasource: dashboard.DataSourceRef) -> Self: ...
    def unit(self, unit: str) -> Self: ...
    def no_value(self, no_value: str) -> Self: ...
    def span(self, w: int) -> Self: ...
    def height(self, h: int) -> Self: ...


def figure(
    title: str,
    description: str,
    unit: str,
    expr: str,
    empty: str,
    thresholds: Thresholds = ((None, GREEN),),
) -> AnyPanel:
    panel = (
        stat.Panel()
        .with_target(query(expr, "").instant())
        .thresholds(steps(thresholds))
        .reduce_options(parts.ReduceDataOptions().calcs(["lastNotNull"]))
    )
    return described(panel, title, description, unit, empty, width=3, height=4)


def lines(
    title: str, description: str, unit: str, empty: str, *targets: tuple[str, str], stacked: bool = False
) -> timeseries.Panel:
    panel = described(timeseries.Panel(), title, description, unit, empty).min(0).fill_opacity(10)
    if stacked:
        panel.stacking(parts.StackingConfig().mode(common.StackingMode.NORMAL)).fill_opacity(50)
    for ref, (expr, legend) in zip("ABCDEFGH", targets, strict=False):
        panel.with_target(query(expr, legend).ref_id(ref))
    return panel


def rows(title: str, description: str, empty: str, expr: str) -> AnyPanel:
    panel = table.Panel().with_target(query(expr, "").instant().format(PromQueryFormat.TABLE))
    panel.with_transformation(
        dashboard.DataTransformerConfig(
            id_val="organize",
            options={
                "excludeByName": {"Time": True},
                "renameByName": {"Value": "count", "job_name": "job"},
            },
        )
    )
    panel.sort_by([parts.TableSortByFieldState().display_name("count").desc(True)])
    return described(panel, title, description, units.Short, empty).decimals(0)


def described(
    panel: PanelT, title: str, description: str, unit: str, empty: str, width: int = 8, height: int = 8
) -> PanelT:
    return (
        panel.title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .no_value(empty)
        .span(width)
        .height(height)
    )


def query(expr: str, legend: str) -> Dataquery:
    return Dataquery().datasource(SOURCE).expr(expr).legend_format(legend).ref_id("A")


def quantile(quantile: float, buckets: str, *by: str) -> str:
    return f"histogram_quantile({quantile}, sum by ({', '.join(('le', *by))}) (rate({buckets}{RATE})))"


def steps(thresholds: Thresholds) -> ThresholdsConfig:
    steps = [dashboard.Threshold(value=value, color=color) for value, color in thresholds]
    return ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(steps)


def choice(name: str, label: str, values: str) -> QueryVariable:
    return (
        QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(values)
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(dashboard.VariableOption(selected=True, text="All", value="$__all"))
    )

"""The support-size curve as a picture: quality against how much is known of a user."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from raymeta.evaluation.fold import OURS, UNADAPTED
from raymeta.evaluation.summary import LABELS, Summary

# ours in a warm colour, all others in cool ones that differ in lightness and dash too
_STYLES: dict[str, dict[str, Any]] = {
    OURS: {"color": "#c4441c", "linewidth": 2.6, "marker": "o", "zorder": 5},
    UNADAPTED: {"color": "#e0a080", "linewidth": 1.6, "linestyle": "--", "marker": "o"},
    "popularity": {"color": "#8a8f98", "linewidth": 1.6, "linestyle": ":", "marker": "s"},
    "item_knn": {"color": "#3b6fb6", "linewidth": 1.6, "marker": "^"},
    "ease": {"color": "#1f8a70", "linewidth": 1.6, "marker": "v"},
    "ials": {"color": "#7d5ba6", "linewidth": 1.6, "marker": "D"},
    "mixture": {"color": "#4a90a4", "linewidth": 1.6, "linestyle": "--", "marker": "P"},
    "mixture_with_ease": {"color": "#20303f", "linewidth": 1.6, "linestyle": "-.", "marker": "X"},
}
_BANDS = {OURS: 0.18, UNADAPTED: 0.08}
_LABEL_GAP = 0.045
"""Least distance between two labels, as a share of the axis."""


def draw_curve(result: Summary, path: Path, *, metric: str = "ndcg_at_10") -> None:
    """Writes a PNG: the mean of `metric` by support size, ours with its 95% band.

    Support sizes are evenly spaced, since each is a question of its own. Lines are labelled at
    their right end; with support size alone, the bands of two methods say little about their paired
    difference, which the report's table has.
    """
    figure = Figure(figsize=(9.0, 5.2), dpi=144, layout="constrained")
    axes = figure.add_subplot()
    sizes = result["support_sizes"]
    ends: dict[str, float] = {}
    for name in [n for n in LABELS if n in _STYLES and n in result["methods"]]:
        spans = [result["methods"][name][str(size)][metric] for size in sizes]
        means = [span["mean"] for span in spans]
        axes.plot(range(len(sizes)), means, markersize=5, **_STYLES[name])
        axes.fill_between(
            range(len(sizes)),
            [span["low"] for span in spans],
            [span["high"] for span in spans],
            color=_STYLES[name]["color"],
            alpha=_BANDS.get(name, 0.05),
            linewidth=0,
        )
        ends[name] = means[-1]
    _dress(axes, result, metric)
    _label_ends(axes, ends, x=len(sizes) - 1)
    figure.savefig(path)


def _dress(axes: Axes, result: Summary, metric: str) -> None:
    sizes, protocol = result["support_sizes"], result.get("protocol", {})
    unit = protocol.get("unit", "units")
    axes.set_xticks(range(len(sizes)), [str(size) for size in sizes])
    axes.set_xlim(-0.15, len(sizes) - 1 + 0.15)
    axes.set_xlabel(f"{unit} known of a new user")
    axes.set_ylabel(_metric_label(metric))
    num_users = max(result["num_users"].values())
    axes.set_title(
        f"New users: {_metric_label(metric)} over the whole catalogue, {num_users:,} users, "
        "95% bands",
        loc="left",
        fontsize=11,
    )
    axes.grid(axis="y", color="#e3e5e8", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _label_ends(axes: Axes, ends: dict[str, float], *, x: int) -> None:
    """Names at the right end of the lines, moved apart where they would overlap."""
    low, high = axes.get_ylim()
    heights = spread_apart(np.array(list(ends.values())), gap=_LABEL_GAP * (high - low))
    for (name, end), height in zip(ends.items(), heights, strict=True):
        axes.annotate(
            LABELS[name],
            xy=(x, end),
            xytext=(x + 0.12, height),
            color=_STYLES[name]["color"],
            fontsize=9.5,
            fontweight="bold" if name == OURS else "normal",
            va="center",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": _STYLES[name]["color"],
                "linewidth": 0.6,
                "alpha": 0.6,
                "shrinkA": 0,
                "shrinkB": 3,
            },
        )


def spread_apart(
    heights: np.ndarray[Any, np.dtype[np.float64]], *, gap: float
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Heights moved so that neighbours are at least `gap` apart, in their order and about where
    they were."""
    order = np.argsort(heights, kind="stable")
    offsets = gap * np.arange(len(heights))
    wanted = heights[order] - offsets
    # groups of labels that push each other share the mean of where they want to be
    blocks: list[list[float]] = []
    for value in wanted:
        blocks.append([float(value), 1.0])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            last, before = blocks.pop(), blocks.pop()
            weight = last[1] + before[1]
            blocks.append([(last[0] * last[1] + before[0] * before[1]) / weight, weight])
    moved = np.concatenate([np.full(int(weight), mean) for mean, weight in blocks])
    result = np.empty(len(heights))
    result[order] = moved + offsets
    return result


def _metric_label(metric: str) -> str:
    return {"ndcg_at_10": "nDCG@10", "recall_at_20": "Recall@20", "mrr": "MRR"}.get(metric, metric)

"""The support-size curve as a picture: quality by how much is known of a user, and the gain."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from raymeta.evaluation.fold import ALONE, OURS, UNADAPTED
from raymeta.evaluation.summary import LABELS, Summary
from raymeta.evaluation.tables import size_text

# ours in a warm colour, all others in cool ones that differ in lightness and dash too
STYLES: dict[str, dict[str, Any]] = {
    OURS: {"color": "#c4441c", "linewidth": 2.6, "marker": "o", "zorder": 5},
    UNADAPTED: {"color": "#d98b62", "linewidth": 1.6, "linestyle": "--", "marker": "o"},
    ALONE: {"color": "#20303f", "linewidth": 1.6, "linestyle": "--", "marker": "d"},
    "popularity": {"color": "#8a8f98", "linewidth": 1.6, "linestyle": ":", "marker": "s"},
    "item_knn": {"color": "#3b6fb6", "linewidth": 1.6, "marker": "^"},
    "ease": {"color": "#1f8a70", "linewidth": 1.6, "marker": "v"},
    "ials": {"color": "#7d5ba6", "linewidth": 1.6, "marker": "D"},
    "mixture": {"color": "#4a90a4", "linewidth": 1.6, "linestyle": "--", "marker": "P"},
    "mixture_with_ease": {"color": "#20303f", "linewidth": 1.6, "linestyle": "-.", "marker": "X"},
    "mixture_with_places": {"color": "#5a6b7a", "linewidth": 1.6, "linestyle": ":", "marker": "*"},
    "boosting": {"color": "#1f8a70", "linewidth": 1.6, "marker": "v"},
    "logistic_regression": {"color": "#3b6fb6", "linewidth": 1.6, "marker": "^"},
    "user_rate": {"color": "#7d5ba6", "linewidth": 1.6, "marker": "D"},
    "category_rate": {"color": "#8a8f98", "linewidth": 1.6, "linestyle": ":", "marker": "s"},
    "item_rate": {"color": "#7d5ba6", "linewidth": 1.6, "marker": "D"},
    "own_rate": {"color": "#4a90a4", "linewidth": 1.6, "linestyle": "--", "marker": "P"},
    "base_rate": {"color": "#8a8f98", "linewidth": 1.6, "linestyle": ":", "marker": "s"},
    "item_mean": {"color": "#8a8f98", "linewidth": 1.6, "linestyle": ":", "marker": "s"},
    "user_item_bias": {"color": "#7d5ba6", "linewidth": 1.6, "marker": "D"},
    "rating_factors": {"color": "#1f8a70", "linewidth": 1.6, "marker": "v"},
    "rating_knn": {"color": "#3b6fb6", "linewidth": 1.6, "marker": "^"},
}
_LABEL_GAP = 0.045
"""Least distance between two labels, as a share of the axis."""
_WHY_IT_FALLS = (
    "What a user has is no longer recommended, and what is left is harder to find: lines may fall "
    "with more events. The gain over the others is what counts."
)
_LEGEND_SHARE = 0.3
"""Room above the differences for their legend, as a share of their axis."""
_DODGE = 0.1
"""Distance between the marks of two methods at one support size."""


def draw_curve(result: Summary, path: Path, *, metric: str = "ndcg_at_10") -> None:
    """Writes a PNG: the mean of `metric` by support size, and what ours gains over the others.

    Support sizes are evenly spaced, since each is a question of its own. The band of a mean is that
    of users, who differ far more than methods do; whether one method is ahead of another is read
    off the paired differences beside it.
    """
    names = [name for name in LABELS if name in STYLES and name in result["methods"]]
    rivals = [name for name in names if name in result["differences"]]
    if not any(result["support_sizes"]):
        rivals = []  # without an event all but a random ranking are the same
    width = 14.0 if rivals else 9.0
    figure = Figure(figsize=(width, 5.2), dpi=144, layout="constrained")
    if rivals:
        axes, beside = figure.subplots(1, 2, width_ratios=[3, 2])
        _draw_differences(beside, result, rivals, metric)
    else:
        axes = figure.add_subplot()
    _draw_means(axes, result, names, metric)
    if _of(result) and not result.get("protocol", {}).get("repeat", False):
        figure.supxlabel(_WHY_IT_FALLS, x=0.01, ha="left", fontsize=9, color="#5a6069")
    figure.savefig(path)


def draw_gains(result: Summary, path: Path) -> None:
    """Writes a PNG: by support size, how much adapting changes single users' nDCG@10."""
    figure = Figure(figsize=(9.0, 4.2), dpi=144, layout="constrained")
    axes = figure.add_subplot()
    axes.axhline(0.0, color="#444a52", linewidth=1.0)
    color = STYLES[OURS]["color"]
    for x, gain in enumerate(result["gain"].values()):
        lowest, low, middle, high, highest = gain["quantiles"].values()
        axes.vlines(x, lowest, highest, color=color, linewidth=1.4)
        axes.vlines(x, low, high, color=color, linewidth=9, alpha=0.45)
        axes.plot(x, middle, marker="_", color="#20303f", markersize=16, markeredgewidth=2)
        share = f"{gain['better']:.0%} better\n{gain['worse']:.0%} worse"
        axes.annotate(
            share, (x, highest), (9, 0), textcoords="offset points", fontsize=8.5, va="top"
        )
    _dress(axes, result, "Gain in nDCG@10 by adapting, over users: median, middle half, 5% to 95%")
    axes.set_xticks(range(len(result["gain"])), list(result["gain"]))
    axes.set_xlim(-0.4, len(result["gain"]) - 0.3)
    figure.savefig(path)


def _draw_means(axes: Axes, result: Summary, names: Sequence[str], metric: str) -> None:
    sizes = result["support_sizes"]
    ends: dict[str, float] = {}
    for name in names:
        spans = [result["methods"][name][str(size)][metric] for size in sizes]
        means = [span["mean"] for span in spans]
        axes.plot(range(len(sizes)), means, markersize=5, **STYLES[name])
        if name == OURS or OURS not in names:
            low, high = ([span[end] for span in spans] for end in ("low", "high"))
            color = STYLES[name]["color"]
            axes.fill_between(range(len(sizes)), low, high, color=color, alpha=0.1, linewidth=0)
        ends[name] = means[-1]
    band = "band: 95% over users" if OURS in names else "bands: 95% over users"
    num_users = max(result["num_users"].values())
    _dress(axes, result, f"{_metric_label(metric)}{_of(result)}, {num_users:,} users ({band})")
    _label_ends(axes, ends, x=len(sizes) - 1)


def _draw_differences(axes: Axes, result: Summary, rivals: Sequence[str], metric: str) -> None:
    """Ours less each rival with its paired interval, side by side at each support size."""
    known = [(x, size) for x, size in enumerate(result["support_sizes"]) if size > 0]
    axes.axhline(0.0, color="#444a52", linewidth=1.0)
    for position, name in enumerate(rivals):
        spans = [result["differences"][name][str(size)][metric] for _, size in known]
        means = np.array([span["mean"] for span in spans])
        low, high = (np.array([span[end] for span in spans]) for end in ("low", "high"))
        shift = _DODGE * (position - (len(rivals) - 1) / 2)
        style = STYLES[name]
        axes.errorbar(
            np.array([x for x, _ in known]) + shift,
            means,
            # rounding may put an end of a zero-width interval on the wrong side of its mean
            yerr=np.clip([means - low, high - means], 0.0, None),
            color=style["color"],
            marker=style["marker"],
            linestyle="none",
            markersize=4,
            linewidth=1.4,
            label=f"less {LABELS[name]}",
        )
    title = f"{_metric_label(metric)} of {LABELS[OURS]} less the others (95%, paired)"
    _dress(axes, result, title)
    axes.set_xlim(min(x for x, _ in known) - 0.5, max(x for x, _ in known) + 0.5)
    bottom, top = axes.get_ylim()
    axes.set_ylim(bottom, top + _LEGEND_SHARE * (top - bottom))
    axes.legend(frameon=False, fontsize=8.5, ncols=2, loc="upper left")


def _dress(axes: Axes, result: Summary, title: str) -> None:
    sizes, protocol = result["support_sizes"], result.get("protocol", {})
    axes.set_xticks(range(len(sizes)), [size_text(size) for size in sizes])
    axes.set_xlim(-0.15, len(sizes) - 1 + 0.15)
    axes.set_xlabel(f"{protocol.get('unit', 'units')} known of a new user")
    axes.set_title(title, loc="left", fontsize=10.5)
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
            color=STYLES[name]["color"],
            fontsize=9.5,
            fontweight="bold" if name == OURS else "normal",
            va="center",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "relpos": (0.0, 0.5),  # to the label's left end, not under its neighbour
                "color": STYLES[name]["color"],
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


def _of(result: Summary) -> str:
    """What is scored, where that is not plain from the metric."""
    return ", whole catalogue" if result.get("scenario", "recommend") == "recommend" else ""


def _metric_label(metric: str) -> str:
    return {
        "ndcg_at_10": "nDCG@10",
        "recall_at_20": "Recall@20",
        "mrr": "MRR",
        "click_gauc": "GAUC of clicks",
        "mae": "MAE",
        "ndcg_at_5": "nDCG@5",
    }.get(metric, metric.replace("_", " "))

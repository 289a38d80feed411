"""What a run of load showed, as numbers and as a picture."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from raymeta.serve.load.client import NO_ANSWER, Outcomes

PERCENTILES = (50.0, 90.0, 99.0, 99.9)


def summary(outcomes: Outcomes) -> dict[str, Any]:
    """Counts, throughput and latencies in milliseconds; latencies are those of good answers."""
    statuses = np.array(outcomes.statuses)
    latencies_ms = 1000.0 * np.array(outcomes.latencies_s)[statuses == 200]
    errors = Counter(
        "no answer" if status == NO_ANSWER else str(status)
        for status in outcomes.statuses
        if status != 200
    )
    result: dict[str, Any] = {
        "sent": len(statuses),
        "good": len(latencies_ms),
        "errors": dict(sorted(errors.items())),
        "wall_s": round(outcomes.wall_s, 3),
        "throughput_per_s": round(len(latencies_ms) / outcomes.wall_s, 1),
        "generator_cpu": round(outcomes.cpu_s / outcomes.wall_s, 3),
    }
    if len(latencies_ms):
        values = np.percentile(latencies_ms, PERCENTILES)
        result["latency_ms"] = {
            **{f"p{p:g}": round(float(v), 3) for p, v in zip(PERCENTILES, values, strict=True)},
            "max": round(float(latencies_ms.max()), 3),
        }
    return result


def plot(runs: Mapping[str, Outcomes], path: Path) -> None:
    """Latency against the share of requests that took longer, one line a run; a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for name, outcomes in runs.items():
        good = np.array(outcomes.statuses) == 200
        latencies_ms = np.sort(1000.0 * np.array(outcomes.latencies_s)[good])
        if len(latencies_ms) == 0:
            continue
        share_above = 1.0 - np.arange(len(latencies_ms)) / len(latencies_ms)
        axes.step(latencies_ms, share_above, where="post", label=name)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="latency (ms)",
        ylabel="share of requests that took longer",
    )
    for percentile in PERCENTILES:
        axes.axhline(1.0 - percentile / 100.0, color="0.85", linewidth=0.8, zorder=0)
        axes.annotate(
            f"p{percentile:g}",
            (1.0, 1.0 - percentile / 100.0),
            xycoords=("axes fraction", "data"),
            fontsize="small",
            color="0.4",
        )
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)

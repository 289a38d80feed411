"""Demand forecasts: how many users buy in each category in each period of the horizon's length.

A forecast is the sum of probabilities over the users who have bought before the period. Beside it
stand forecasts from counts alone, which know how many such users there are now and were then:

    last period     buyers of the period before, for each user known then
    seasonal naive  the same of `SEASON` periods before
    mean rate       buyers of all periods before, for each user known in them
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raymeta.data.events import SupportView
from raymeta.data.moments import intent_rows
from raymeta.data.task_dataset import UserTasks
from raymeta.evaluation.bootstrap import interval
from raymeta.evaluation.fold import OURS, FoldScores
from raymeta.evaluation.intents import CutIntents, cut_at, end_of
from raymeta.seeding import numpy_generator

Floats = NDArray[np.float64]
Method = Callable[[CutIntents], Floats]
SEASON = 4
"""Periods in a season: a month, where the horizon is a week."""

NAIVE = ("last_period", "seasonal_naive", "mean_rate")
NUM_RESAMPLES = 1000


def cut_periods(users: UserTasks, view: SupportView) -> list[CutIntents]:
    """All whole periods of a log up to its end, in the order of time, users cut at each start."""
    horizon_ms, end_ms = intent_rows(view).horizon_ms, end_of(users)
    begin_ms = int(users.events.timestamp_ms.min(initial=end_ms))
    number = (end_ms - begin_ms) // horizon_ms
    starts = [end_ms - place * horizon_ms for place in range(number, 0, -1)]
    cuts = [cut_at(users, start, view) for start in starts]
    return [cut for cut in cuts if len(cut)]


def forecast(periods: Sequence[CutIntents], methods: Mapping[str, Method]) -> dict[str, Any]:
    """Forecasts of the later half of the periods `[P, C]`, by method, and what came true.

    Returns:
        `truth` and, by name, `forecasts`, as lists.
    """
    judged = _judged(periods)
    return {
        "truth": [_buyers(cut).tolist() for cut in judged],
        "forecasts": {
            name: [method(cut).sum(0).tolist() for cut in judged]
            for name, method in methods.items()
        },
    }


def naive_forecasts(periods: Sequence[CutIntents]) -> dict[str, list[list[float]]]:
    """The forecasts from counts, for the later half of the periods."""
    bought = np.stack([_buyers(cut) for cut in periods])
    known = np.array([len(cut) for cut in periods], np.float64)
    places = range(len(periods) - len(_judged(periods)), len(periods))
    found: dict[str, list[list[float]]] = {name: [] for name in NAIVE}
    for place in places:
        rates = {
            "last_period": bought[place - 1] / known[place - 1],
            "seasonal_naive": bought[max(0, place - SEASON)] / known[max(0, place - SEASON)],
            "mean_rate": bought[:place].sum(0) / known[:place].sum(),
        }
        for name, rate in rates.items():
            found[name].append((rate * known[place]).tolist())
    return found


def summarise_demand(scores: Sequence[FoldScores], *, seed: int = 0) -> dict[str, Any]:
    """Users of all folds together: the errors of each method, and ours less each other's.

    `wape` is the sum of |forecast - truth| over periods and categories over the sum of truth, and
    `bias` that of forecast - truth. Intervals are over periods, resampled together.
    """
    truth: dict[str, Floats] = {}
    total: dict[str, Floats] = {}
    for part in scores:
        demand = part.facts.get("demand", {"forecasts": {}})
        for name, values in demand["forecasts"].items():
            length = min(len(values), len(total.get(name, values)))  # folds may end a period apart
            truth[name] = _added(truth.get(name), demand["truth"], length)
            total[name] = _added(total.get(name), values, length)
    if not total:
        return {}
    num_periods = min(len(values) for values in total.values())
    draw = numpy_generator(seed, "demand").integers(0, num_periods, (NUM_RESAMPLES, num_periods))
    everything = np.arange(num_periods)[None]
    found = {
        name: (_errors(values[-num_periods:], truth[name][-num_periods:]))
        for name, values in total.items()
    }
    result: dict[str, Any] = {"num_periods": num_periods, "methods": {}, "differences": {}}
    for name, error in found.items():
        result["methods"][name] = {
            m: _span(of(error, everything)[0], of(error, draw)) for m, of in _METRICS.items()
        }
        if OURS in found and name != OURS:
            result["differences"][name] = {
                "wape": _span(
                    _wape(found[OURS], everything)[0] - _wape(error, everything)[0],
                    _wape(found[OURS], draw) - _wape(error, draw),
                )
            }
    return result


def _judged(periods: Sequence[CutIntents]) -> Sequence[CutIntents]:
    return periods[(len(periods) + 1) // 2 :]


def _buyers(cut: CutIntents) -> Floats:
    return cut.labels.sum(0).astype(np.float64)


def _added(sum_PC: Floats | None, values: Any, length: int) -> Floats:
    last = np.asarray(values, np.float64)[-length:]
    return last if sum_PC is None else sum_PC[-length:] + last


def _errors(forecast_PC: Floats, truth_PC: Floats) -> Floats:
    """|error|, error and truth of each period, `[P, 3]`."""
    error = forecast_PC - truth_PC
    return np.stack([np.abs(error).sum(1), error.sum(1), truth_PC.sum(1)], 1)


def _wape(errors_P3: Floats, places_RP: NDArray[np.int64]) -> Floats:
    sums = errors_P3[places_RP].sum(1)
    return np.asarray(sums[:, 0] / sums[:, 2])


def _bias(errors_P3: Floats, places_RP: NDArray[np.int64]) -> Floats:
    sums = errors_P3[places_RP].sum(1)
    return np.asarray(sums[:, 1] / sums[:, 2])


_METRICS = {"wape": _wape, "bias": _bias}


def _span(value: float, drawn: Floats) -> dict[str, float]:
    low, high = interval(drawn[:, None])
    return {"mean": float(value), "low": float(low[0]), "high": float(high[0])}

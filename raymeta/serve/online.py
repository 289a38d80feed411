"""Live variants: how users are dealt to them, how they do, and two of them in one list.

Nothing is counted while answering. What users were shown and did is in their events, which name
the lists that they follow from, and a list's id names its variant (`traffic`).
"""

import datetime
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np

from raymeta.errors import DataError
from raymeta.evaluation.online.attribution import DAY_MS, Act, Outcome, Tally, Windows
from raymeta.evaluation.online.interleaving import Preference, team_draft
from raymeta.evaluation.online.statistics import (
    RATIO_ALARM,
    Rate,
    difference,
    sample_ratio_p,
)
from raymeta.serve.answers import Answers
from raymeta.serve.models import Models, TenantModels
from raymeta.serve.schemas.online import (
    Change,
    DayTraffic,
    ExperimentsResponse,
    Interleaving,
    OnlineMetricsResponse,
    OutcomeMetrics,
    Proportion,
    SampleRatio,
    VariantMetrics,
    VariantShare,
)
from raymeta.serve.schemas.recommend import RecommendRequest, RecommendResponse
from raymeta.serve.traffic import new_interleaved_id, origin_of
from raymeta.serve.user_events.base import EventStore, UserRecord

DAYS = 30
"""How far back traffic is told of."""
_USERS_A_PAGE = 500


class Online:
    """Measures and compares the variants of a tenant.

    Args:
        store: where events are.
        models: who answers.
        answers: makes the lists that are interleaved.
        now_ms: the clock, in UTC milliseconds.
        generator: tosses the coins of interleaving.
    """

    def __init__(
        self,
        store: EventStore,
        models: Models,
        answers: Answers,
        *,
        now_ms: Callable[[], int],
        generator: np.random.Generator | None = None,
    ) -> None:
        self._store = store
        self._models = models
        self._answers = answers
        self._now_ms = now_ms
        self._generator = generator or np.random.default_rng()

    def experiments(self, tenant: str) -> ExperimentsResponse:
        """How users are dealt to the tenant's variants."""
        models = self._models.tenant(tenant)
        shares = models.shares()
        variants = {
            name: VariantShare(
                model_version=variant.trained.model_version,
                share=shares.get(name, 0.0),
                is_default=name == models.default_variant,
            )
            for name, variant in models.variants.items()
        }
        return ExperimentsResponse(tenant=tenant, salt=models.salt, variants=variants)

    async def metrics(self, tenant: str, windows: Windows) -> OnlineMetricsResponse:
        """Clicks and conversions by variant; reads every user of the tenant."""
        models = self._models.tenant(tenant)
        tally = Tally(origin_of, windows, self._now_ms())
        days: dict[datetime.date, Counter[str]] = defaultdict(Counter)
        after = ""
        while user_ids := await self._store.user_ids(tenant, after=after, limit=_USERS_A_PAGE):
            for user_id in user_ids:
                record = await self._store.read(tenant, user_id)
                tally.add(_acts(record))
                for event in record.events:
                    if 0 <= tally.now_ms - event.timestamp_ms < DAYS * DAY_MS:
                        days[_day(event.timestamp_ms)][event.event_type] += 1
            after = user_ids[-1]
        return OnlineMetricsResponse(
            tenant=tenant,
            as_of_ms=tally.now_ms,
            click_window_s=windows.click_ms / 1000.0,
            conversion_window_s=windows.conversion_ms / 1000.0,
            variants={
                name: _variant(name, tally, default=models.default_variant)
                for name in sorted(tally.outcomes)
            },
            sample_ratio=_sample_ratio(models, tally.outcomes),
            interleavings=[
                _interleaving(variants, preference)
                for variants, preference in sorted(tally.preferences.items())
            ],
            days=[DayTraffic(day=day, events=counts) for day, counts in sorted(days.items())],
        )

    async def interleaved(
        self, request: RecommendRequest, *, idempotency_key: str | None = None
    ) -> RecommendResponse:
        """One list of the two variants that the request names; its events are kept once."""
        assert request.interleave is not None
        first_name, second_name = request.interleave
        alone = request.model_copy(update={"interleave": None})
        first = await self._answers.recommend(
            alone.model_copy(update={"variant": first_name}), idempotency_key=idempotency_key
        )
        second = await self._answers.recommend(
            alone.model_copy(update={"variant": second_name, "events": []})
        )
        if first.model_version == second.model_version:
            raise DataError(
                f"The variants {first_name!r} and {second_name!r} are one model, "
                f"{first.model_version}.",
                remedy="Interleave two that differ.",
            )
        by_side = [{item.id: item for item in answer.items} for answer in (first, second)]
        drafted = team_draft(
            list(by_side[0]), list(by_side[1]), length=request.n, generator=self._generator
        )
        items = [
            by_side[0 if picked else 1][item_id].model_copy(
                update={"variant": first_name if picked else second_name}
            )
            for item_id, picked in zip(drafted.items, drafted.from_first, strict=True)
        ]
        return first.model_copy(
            update={
                "recommendation_id": new_interleaved_id(
                    (first_name, second_name), drafted.from_first
                ),
                "items": items,
                "variant": f"{first_name}+{second_name}",
                "took_ms": first.took_ms + second.took_ms,
            }
        )


def _acts(record: UserRecord) -> list[Act]:
    return [
        Act(event.item_id, event.event_type, event.timestamp_ms, event.ranking_id, event.position)
        for event in record.events
        if event.item_id is not None
    ]


def _day(timestamp_ms: int) -> datetime.date:
    return datetime.datetime.fromtimestamp(timestamp_ms / 1000.0, datetime.UTC).date()


def _variant(name: str, tally: Tally, *, default: str) -> VariantMetrics:
    """Of one variant, in all and by scenario."""
    scenarios = {}
    for (variant, scenario), outcome in sorted(tally.by_scenario.items()):
        if variant == name:
            other = tally.by_scenario.get((default, scenario), Outcome())
            scenarios[scenario] = OutcomeMetrics(
                **_metrics(outcome, None if name == default else other)
            )
    of_default = tally.outcomes.get(default, Outcome())
    in_all = _metrics(tally.outcomes[name], None if name == default else of_default)
    return VariantMetrics(**in_all, scenarios=scenarios)


def _metrics(outcome: Outcome, default: Outcome | None) -> dict[str, Any]:
    """The fields of an `OutcomeMetrics`; the changes where the default is another."""
    clicked, converted = outcome.users_clicked_rate(), outcome.users_converted_rate()
    changes = {}
    if default is not None:
        changes = {
            "users_clicked_change": _change(clicked, default.users_clicked_rate()),
            "users_converted_change": _change(converted, default.users_converted_rate()),
        }
    return dict(
        users=outcome.users,
        impressions=outcome.impressions,
        clicks=outcome.clicks,
        conversions=outcome.conversions,
        open=outcome.open,
        click_rate=_proportion(outcome.click_rate()),
        conversion_rate=_proportion(outcome.conversion_rate()),
        users_clicked=_proportion(clicked),
        users_converted=_proportion(converted),
        **changes,
    )


def _proportion(found: Rate) -> Proportion:
    return Proportion(value=found.value, low=found.low, high=found.high)


def _change(one: Rate, other: Rate) -> Change:
    found = difference(one, other)
    return Change(value=found.value, low=found.low, high=found.high, is_clear=found.is_clear)


def _interleaving(variants: tuple[str, ...], preference: Preference) -> Interleaving:
    first, second = variants
    return Interleaving(
        first=first,
        second=second,
        prefer_first=preference.first,
        prefer_second=preference.second,
        ties=preference.ties,
        p=preference.p,
    )


def _sample_ratio(models: TenantModels, outcomes: dict[str, Outcome]) -> SampleRatio:
    shares = models.shares()
    users = {name: outcomes.get(name, Outcome()).users for name in shares}
    p = sample_ratio_p(users, shares)
    return SampleRatio(users=users, p=p, alarm=p < RATIO_ALARM)

"""The numbers of the whole service: sums over replicas that can be read off."""

import asyncio
import math
from collections.abc import Callable, Sequence

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raymeta.errors import ResourceError
from raymeta.observability import metrics
from raymeta.observability.metrics import SECONDS
from raymeta.serve.live import Live, increase, quantile
from raymeta.serve.schemas.live import LiveNumbers
from raymeta.serve.service import Service
from tests.helpers.clocks import Clock
from tests.helpers.exposition import Replica
from tests.unit.serve.conftest import caller
from tests.unit.serve.test_access import KEYS, as_key


def told(live: Live, tenant: str = "default") -> LiveNumbers:
    return asyncio.run(live.numbers(tenant))


def live_of(*replicas: Replica, clock: Callable[[], float] = lambda: 0.0) -> Live:
    return Live(lambda: [replica.text() for replica in replicas], clock=clock)


def asked(replica: Replica, seconds: float, status: str = "200") -> None:
    replica.observe(metrics.REQUEST_SECONDS, ("/v1/recommend", status), seconds)


def test_two_replicas_are_added_up_and_never_told_as_one() -> None:
    one, other = Replica("a"), Replica("b")
    for replica, seconds, count in ((one, 0.0015, 90), (other, 0.12, 10)):
        for _ in range(count):
            asked(replica, seconds)
        replica.add(metrics.STATE_LOOKUPS, ("hit",), count)
        replica.set(metrics.STATES_CACHED, (), count)
        replica.set(metrics.STORE_BYTES, (), 500)
        replica.set(metrics.MODEL_LOADED, (), 1000.0 + count)
    one.add(metrics.STATE_LOOKUPS, ("miss",), 100)
    found = told(live_of(one, other))
    assert (found.replicas, found.cached_states, found.store_bytes) == (2, 100, 500)
    assert found.models_loaded_s == 1010.0
    (route,) = found.since_start.routes
    assert (route.route, route.count, route.failed) == ("/v1/recommend", 100, 0)
    # 1 to 2 ms holds the fastest 90, 100 to 150 ms the rest
    assert route.p50_ms == pytest.approx(1.0 + 50 / 90)
    assert route.p95_ms == pytest.approx(125.0)
    assert found.since_start.cache.hit_rate == 0.5
    assert found.lately is None


def test_freshness_is_of_what_keeps_an_event_and_of_nothing_else() -> None:
    replica = Replica("a")
    for operation, count in (("append", 1), ("append_and_read", 2), ("read", 4)):
        for _ in range(count):
            replica.observe(metrics.STORE_SECONDS, (operation, "ok"), 0.004)
    replica.observe(metrics.ADAPT_SECONDS, (), 0.0008)
    freshness = told(live_of(replica)).since_start.freshness
    assert freshness["events durable"].count == 3
    assert freshness["users adapted"].count == 1
    assert freshness["item changes taken over"].p50_ms is None


def test_what_is_for_anybody_is_told_by_variant_and_why_and_to_its_tenant_alone() -> None:
    replica = Replica("a")
    for tenant, variant, why, count in (
        ("default", "main", "none", 6),
        ("default", "main", "prior", 3),
        ("default", "main", "store", 1),
        ("default", "canary", "none", 5),
        ("other", "main", "prior", 100),
    ):
        replica.add(metrics.ANSWERS, (tenant, variant, why), count)
    canary, main = told(live_of(replica)).since_start.answers
    assert (canary.variant, canary.lists, canary.fallback_rate) == ("canary", 5, 0.0)
    assert (main.lists, main.fallbacks, main.fallback_rate) == (10, {"prior": 3, "store": 1}, 0.4)


def test_lately_is_what_came_since_it_was_asked_before() -> None:
    clock, replica = Clock(0), Replica("a")
    live = live_of(replica, clock=lambda: clock() / 1000.0)
    asked(replica, 0.0015)
    assert told(live).lately is None
    for _ in range(4):
        asked(replica, 0.3, status="503")
    clock.advance(50_000)
    lately = told(live).lately
    assert lately is not None
    assert lately.seconds == 50.0
    assert (lately.routes[0].count, lately.routes[0].failed) == (4, 4)
    assert lately.routes[0].p50_ms == pytest.approx(375.0)
    clock.advance(100_000)  # only the second look is within two minutes
    again = told(live).lately
    assert again is not None
    assert (again.seconds, again.routes) == (100.0, [])


def test_a_replica_that_starts_anew_takes_nothing_back() -> None:
    kept, restarted, gone = (("n", frozenset({("WorkerId", w)})) for w in "abc")
    before = {kept: 10.0, restarted: 8.0, gone: 100.0}
    new = ("n", frozenset({("WorkerId", "d")}))
    found = increase(before, {kept: 12.0, restarted: 3.0, new: 5.0})
    assert sum(found.values()) == 2.0 + 3.0 + 5.0


@given(st.lists(st.floats(0.0, 2.4), min_size=1, max_size=60), st.floats(0.01, 1.0))
def test_a_quantile_lies_in_the_bucket_of_the_true_one(values: list[float], share: float) -> None:
    bounds = [*SECONDS, math.inf]
    buckets = {bound: float(sum(v <= bound for v in values)) for bound in bounds}
    found = quantile(share, buckets)
    true = float(np.quantile(values, share, method="inverted_cdf"))
    upper = next(bound for bound in bounds if true <= bound)
    lower = max((bound for bound in bounds if bound < true), default=0.0)
    assert found is not None
    assert lower <= found <= upper


def test_what_lies_beyond_the_last_bucket_is_told_as_its_bound() -> None:
    assert quantile(0.5, {1.0: 0.0, math.inf: 3.0}) == 1.0
    assert quantile(0.5, {1.0: 0.0, math.inf: 0.0}) is None
    assert quantile(0.5, {}) is None


def refused(service: Service) -> httpx.Response:
    return caller(service)("GET", "/ops/live")


def test_without_an_exporter_or_a_node_there_is_no_sum(service: Service) -> None:
    answer = refused(service)
    assert answer.status_code == 422
    assert "exports no numbers" in answer.json()["detail"]

    def silent() -> Sequence[str]:
        raise ResourceError("A node is silent.", remedy="Look at it.")

    service.live = Live(silent)
    answer = refused(service)
    assert (answer.status_code, answer.json()["detail"]) == (503, "A node is silent. Look at it.")


def test_it_is_the_operators(make_service: Callable[..., Service]) -> None:
    service = make_service(keys=KEYS)
    service.live = live_of(Replica("a"))
    call = caller(service)
    assert call("GET", "/ops/live", headers=as_key("all")).json()["replicas"] == 0
    assert call("GET", "/ops/live", headers=as_key("reader")).status_code == 403

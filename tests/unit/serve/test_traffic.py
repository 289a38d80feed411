"""Users dealt to variants, and ids that say who made a list."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raymeta.config.serving import TenantConfig
from raymeta.errors import ConfigError
from raymeta.evaluation.online.attribution import Origin
from raymeta.serve.traffic import assign, new_interleaved_id, new_list_id, origin_of

USERS = [f"user{n}" for n in range(4000)]


def dealt(salt: str = "one", **shares: float) -> dict[str, str]:
    return {user: assign(user, shares, default="main", salt=salt) for user in USERS}


def test_shares_are_kept_and_the_same_user_gets_the_same() -> None:
    found = dealt(main=3, other=1)
    assert found == dealt(other=1, main=3)
    assert sum(v == "other" for v in found.values()) / len(USERS) == pytest.approx(0.25, abs=0.03)
    assert set(dealt().values()) == {"main"}
    assert set(dealt(main=0, other=1).values()) == {"other"}


def test_a_canary_takes_from_the_default_alone() -> None:
    small, large = dealt(main=95, canary=5), dealt(main=80, canary=20)
    assert {u for u, v in small.items() if v == "canary"} < {
        u for u, v in large.items() if v == "canary"
    }


def test_another_salt_deals_anew() -> None:
    one, two = dealt("one", main=1, other=1), dealt("two", main=1, other=1)
    same = sum(one[user] == two[user] for user in USERS) / len(USERS)
    assert same == pytest.approx(0.5, abs=0.05)


NAMES = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")


@given(NAMES, NAMES, st.lists(st.booleans(), max_size=100))
def test_an_id_says_who_made_the_list(one: str, other: str, picks: list[bool]) -> None:
    assert origin_of(new_list_id(one)) == Origin((one,))
    assert origin_of(new_list_id(one, "search")) == Origin((one,), scenario="search")
    made = new_interleaved_id((one, other), picks)
    assert origin_of(made) == Origin((one, other), tuple(picks))
    assert len(made) <= 256  # what an event may name


@pytest.mark.parametrize(
    "list_id",
    [
        "",
        "mine",
        "a.b",
        "0" * 32,
        "0" * 32 + ".",
        "0" * 32 + ".:search",
        "0" * 32 + ".a+b",
        "0" * 32 + ".a+b+g",
    ],
)
def test_an_id_of_somebody_else_is_nobodys(list_id: str) -> None:
    assert origin_of(list_id) is None


@pytest.mark.parametrize(
    ("traffic", "message"),
    [({"other": 1}, "traffic names 'other'"), ({"main": 0}, "all 0"), ({"main": -1}, "is -1")],
)
def test_shares_that_mean_nothing_are_refused(traffic: dict[str, float], message: str) -> None:
    values = {"variants": {"main": "a"}, "default_variant": "main", "traffic": traffic}
    with pytest.raises(ConfigError, match=message):
        TenantConfig.parse(values, source="serving.yaml")

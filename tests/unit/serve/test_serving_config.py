"""Serving settings: contradictions are refused by name, and the two halves make the whole."""

import pytest

from raymeta.config.serving import ServingConfig, folders_of
from raymeta.errors import ConfigError


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"stor": {}}, "unknown key 'stor'. Did you mean 'store'?"),
        ({"store": {"kind": "dynamo"}}, "'store'"),
        ({"store": {"kind": "redis", "path": "x"}}, "unknown key 'store.path'"),
        ({"store": {"kind": "postgres", "db_schema": "a; drop"}}, "pattern"),
        ({"retention": {"user_days": 5}}, "user_days 5 is less than event_id_days 90"),
        ({"store": {"kind": "memory"}, "replicas": {"num_replicas": 2}}, "use kind 'sqlite'"),
        ({"tenants": {"t": {"variants": {}}}}, "at least 1 item"),
        ({"tenants": {"t": {"variants": {"a": "x"}}}}, "'default' is none of: a"),
        ({"tenants": {"no spaces": {"variants": {"default": "x"}}}}, "pattern"),
        ({"replicas": {"num_replicas": 0}}, "'replicas.num_replicas' is 0"),
    ],
)
def test_wrong_settings_are_refused(values: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ServingConfig.parse(values, source="serving.yaml")
    assert text in str(caught.value)


def test_settings_and_models_make_the_whole() -> None:
    config = ServingConfig.parse(
        {
            "tenants": {"default": {"variants": {"default": "/models/a"}}},
            "retention": {"events": 9},
        },
        source="test",
    )
    halves = config.fixed_settings() | config.model_table()
    assert ServingConfig.parse(halves, source="test") == config
    assert "tenants" not in config.fixed_settings()


def test_a_variant_is_a_folder_or_one_for_each_scenario():
    assert folders_of("a") == {"": "a"}
    several = folders_of({"ads": "b", "recommend": "a"})
    assert list(several.items()) == [("recommend", "a"), ("ads", "b")]
    assert list(folders_of({"ads": "b", "search": "c"})) == ["ads", "search"]
    with pytest.raises(ConfigError, match=r"variants\.default"):
        ServingConfig.parse({"tenants": {"t": {"variants": {"default": {}}}}}, source="x")

"""`prepare` on Ray writes byte for byte what it writes in one process."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from raymeta import runtime
from raymeta.data.dataset_dir import read_manifest
from raymeta.data.pipeline import RayRunner
from raymeta.data.prepare import prepare
from raymeta.data.sources.files import Files
from raymeta.data.sources.synthetic import SyntheticShop
from raymeta.data.synthetic_shop import VISITS_PER_SLICE, Shop
from raymeta.errors import SchemaError
from tests.helpers.logs import mapped_schema, write_csv

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    with runtime.session(num_cpus=2):
        yield


def test_both_ways_give_the_same_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raymeta.data.sources.synthetic._SLICES_PER_UNIT", 1)
    shop = Shop(num_users=300, num_items=100, num_visits=2 * VISITS_PER_SLICE + 100)
    here = prepare(SyntheticShop(shop), tmp_path / "here").manifest
    on_ray = prepare(SyntheticShop(shop), tmp_path / "ray", runner=RayRunner()).manifest
    assert on_ray == here, "the hashes of all files included"
    assert len(here["sha256"]) > 5
    assert read_manifest(tmp_path / "ray") == on_ray


def test_a_wrong_file_is_refused_as_it_is_in_one_process(tmp_path: Path) -> None:
    log = write_csv(tmp_path / "events.csv", ["u1,a,view,yesterday,"])
    with pytest.raises(SchemaError, match="timestamp missing or not readable"):
        prepare(Files([log], schema=mapped_schema()), tmp_path / "data", runner=RayRunner())
    assert [p.name for p in tmp_path.iterdir()] == ["events.csv"]

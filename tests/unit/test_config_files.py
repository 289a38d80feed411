"""Every settings file in the repository is valid, complete, and says where it comes from."""

from pathlib import Path

import pytest

from raymeta.cli.config import resolve

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "tune_configs").rglob("*.y*ml"))


def test_how_many_there_are() -> None:
    # a file that a glob misses would be tested by nothing
    names = [str(path.relative_to(ROOT / "tune_configs")) for path in FILES]
    assert names == [
        "experiments/complete_journey.yaml",
        "experiments/complete_journey_campaigns.yaml",
        "experiments/complete_journey_features.yaml",
        "experiments/complete_journey_intent.yaml",
        "experiments/complete_journey_large.yaml",
        "experiments/complete_journey_places.yaml",
        "experiments/complete_journey_search.yaml",
        "experiments/complete_journey_sequence.yaml",
        "experiments/complete_journey_tasks.yaml",
        "experiments/kuairand_ads.yaml",
        "experiments/kuairand_new_items.yaml",
        "experiments/movielens.yaml",
        "experiments/movielens_ratings.yaml",
        "experiments/movielens_ratings_new_items.yaml",
        "experiments/movielens_ratings_order.yaml",
        "experiments/online_retail.yaml",
        "experiments/online_retail_search.yaml",
        "experiments/online_retail_sequence.yaml",
        "experiments/online_retail_sequence_time.yaml",
        "experiments/online_retail_time.yaml",
        "experiments/synthetic_shop.yaml",
        "sweeps/inner_loop.yaml",
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_is_valid_and_of_its_folders_kind(path: Path) -> None:
    kind, _ = resolve(path, [])
    assert kind == {"experiments": "experiment", "sweeps": "sweep"}[path.parent.name]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_header_says_data_time_command_and_values(path: Path) -> None:
    header = [line for line in path.read_text(encoding="utf-8").splitlines()[:8] if line[:1] == "#"]
    for word in ("Data:", "Time:", "Run:", "Values:"):
        assert any(line.startswith(f"# {word}") for line in header), f"{path.name} lacks '{word}'"
    command = next(line for line in header if line.startswith("# Run:"))
    assert str(path.relative_to(ROOT)) in command


@pytest.mark.parametrize("path", sorted((ROOT / "serve_apps").glob("*.yaml")), ids=lambda p: p.stem)
def test_serve_files_hold_valid_settings(path: Path) -> None:
    assert resolve(path, [])[0] == "serving configuration"

"""Feature vocabularies: round trip, unknown and missing values, and the way into a support."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from raymeta.config.data import DataConfig
from raymeta.data.events import History, SupportView, support_from_events
from raymeta.data.features import MAX_SLOTS, FeatureVocab
from raymeta.data.task_split import load_task_split
from raymeta.errors import DataError, SchemaError
from tests.helpers.shops import write_grouped_shop

KINDS = {
    "colour": "categorical",
    "tags": "multi_categorical",
    "price": "numeric",
    "title": "text",
    "secret": "ignore",
    "absent": "categorical",
}
RECORDS: list[dict[str, Any]] = [
    {"colour": "red", "tags": ["a", "b"], "price": 1.0, "title": "Big red mug", "secret": "x"},
    {"colour": "red", "tags": ["b", "b"], "price": 3.0, "title": "Mug, RED!", "secret": "x"},
    {"colour": "blue", "tags": ["a"], "price": 5.0, "title": "blue MUG", "secret": "x"},
    {"colour": None, "tags": None, "price": None, "title": None, "secret": "x"},
]
TABLE = pa.Table.from_pylist(RECORDS)


@pytest.fixture
def vocab() -> FeatureVocab:
    return FeatureVocab.count(TABLE, KINDS, min_rows=2)


def named(vocab: FeatureVocab, record: dict[str, Any]) -> dict[tuple[str, str | None], float]:
    """A record's slots as (column, value) -> weight, by way of the stored vocabulary."""
    rows = vocab.to_table().to_pylist()
    encoded = vocab.encode(vocab.table([record]))
    found: dict[tuple[str, str | None], float] = {}
    for index, weight in zip(encoded.index[0], encoded.weight[0], strict=True):
        if weight:
            key = (rows[index]["column"], rows[index]["value"])
            found[key] = found.get(key, 0.0) + float(weight)
    return found


def test_a_record_becomes_its_known_values(vocab: FeatureVocab) -> None:
    assert named(vocab, {"colour": "red", "tags": ["b", "a"], "price": 3.0, "title": "A mug"}) == {
        ("colour", "red"): 1.0,
        ("tags", "a"): 0.5,
        ("tags", "b"): 0.5,
        ("title", "mug"): 1.0,
        # the mean price has weight 0, and so no slot
    }
    dear = vocab.encode(vocab.table([{"price": 5.0}]))
    # fields stand in the order of their columns' names
    assert [f.column for f in vocab.fields] == ["colour", "price", "tags", "title"]
    assert dear.weight[0, 1] == pytest.approx(2.0 / np.std([1.0, 3.0, 5.0]))


def test_missing_rare_and_new_values_are_unknown_and_new_ones_are_counted(
    vocab: FeatureVocab,
) -> None:
    unknown = {("colour", None): 1.0, ("price", None): 1.0, ("tags", None): 1.0}
    unknown |= {("title", None): 1.0}
    assert named(vocab, {}) == unknown
    assert named(vocab, {"colour": "blue", "tags": ["z"], "title": "?"}) == unknown
    encoded = vocab.encode(vocab.table([{"colour": "blue", "tags": ["z", "y", "a"]}, {}]))
    assert encoded.unseen == {"colour": 1, "price": 0, "tags": 2, "title": 0}
    assert vocab.unknown.index.tolist() == encoded.index[1].tolist()


def test_numbers_beyond_the_training_range_count_as_its_end(vocab: FeatureVocab) -> None:
    encoded = vocab.encode(vocab.table([{"price": 5.0}, {"price": 9e9}, {"price": float("nan")}]))
    assert encoded.weight[0, 1] == encoded.weight[1, 1]
    assert encoded.unseen["price"] == 1
    assert encoded.index[2, 1] == vocab.first_row[1]  # not a number is missing


def test_the_vocabulary_survives_a_file(vocab: FeatureVocab, tmp_path: Path) -> None:
    pq.write_table(vocab.to_table(), tmp_path / "vocab.parquet")
    again = FeatureVocab.from_table(pq.read_table(tmp_path / "vocab.parquet"))
    assert again == vocab
    one, other = vocab.encode(TABLE), again.encode(TABLE)
    assert np.array_equal(one.index, other.index)
    assert np.array_equal(one.weight, other.weight)
    assert vocab.to_table().num_rows == vocab.num_rows


def test_a_long_list_is_cut_and_weights_still_sum_to_one() -> None:
    tags = [[str(n) for n in range(MAX_SLOTS + 5)]] * 3
    vocab = FeatureVocab.count(pa.table({"tags": tags}), {"tags": "multi_categorical"})
    encoded = vocab.encode(pa.table({"tags": tags}))
    assert encoded.index.shape == (3, MAX_SLOTS)
    assert encoded.weight.sum(1) == pytest.approx([1.0] * 3)


def test_slots_as_a_matrix(vocab: FeatureVocab) -> None:
    encoded = vocab.encode(TABLE)
    matrix = encoded.matrix(vocab.num_rows).toarray()
    expected = np.zeros_like(matrix)
    for row in range(len(encoded)):
        np.add.at(expected[row], encoded.index[row], encoded.weight[row])
    assert matrix == pytest.approx(expected)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"color": "red"}, "no feature 'color'"),
        ({"price": "cheap"}, "'price' wants a number"),
        ({"tags": "a|b"}, "'tags' wants a list of texts"),
        ({"colour": 7}, "'colour' wants a text"),
    ],
)
def test_a_record_that_cannot_be_read_is_refused(
    vocab: FeatureVocab, record: dict[str, Any], message: str
) -> None:
    with pytest.raises(SchemaError, match=message):
        vocab.table([record])


def test_a_table_without_a_column_is_refused(vocab: FeatureVocab) -> None:
    with pytest.raises(SchemaError, match="lacks the column 'colour'"):
        vocab.encode(TABLE.drop_columns(["colour"]))


def test_user_features_reach_the_support(tmp_path: Path) -> None:
    shop = write_grouped_shop(tmp_path / "shop")
    config = DataConfig(min_item_users=1, user_features=True)
    with pytest.raises(DataError, match="knows nothing of its training users"):
        load_task_split(shop, config)
    # every second user has a row; the town is the group of items that the user buys from
    users = [{"user_id": f"u{n:04d}", "town": f"t{n % 4}"} for n in range(0, 120, 2)]
    pq.write_table(pa.Table.from_pylist(users), shop / "users.parquet")
    (shop / "schema.yaml").write_text("users: {town: categorical}\n")
    split = load_task_split(shop, config)
    assert split.user_vocab is not None
    values = split.user_vocab.fields[0].values
    support = support_from_events(split.test, split.view)
    for user_id, index in zip(split.test.user_ids, support["user_index"], strict=True):
        number = int(str(user_id)[1:])
        expected = 0 if number % 2 else 1 + values.index(f"t{number % 4}")
        assert index.tolist() == [expected]
    # a cut of a history keeps them, and a user without any gets the unknown row
    kept = support_from_events([split.test[0].where(slice(0, 2)), History.empty()], split.view)
    assert torch.equal(kept["user_index"][0], support["user_index"][0])
    assert kept["user_index"][1].tolist() == split.view.unknown_user.index.tolist()
    plain = support_from_events(split.test, SupportView(10, (0,)))
    assert "user_index" not in plain

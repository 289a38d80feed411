"""BM25 against its formula, what a match says, and items that are added."""

import math

import pyarrow as pa
import pytest
import torch

from raymeta.data.queries import queries_of_items
from raymeta.errors import ConfigError
from raymeta.models.text_match import ALL_WORDS, K1, LEXICAL, MEANING, B, TextMatcher, WordIndex

TEXTS = ("red candle holder", "blue candle", "red red bowl", "alarm clock")


def test_lexical_is_bm25_over_its_largest_value() -> None:
    lexical, _ = WordIndex(TEXTS).match("red holder")
    lengths = [3, 2, 3, 2]
    mean = sum(lengths) / 4

    def idf(found: int) -> float:
        return math.log(1 + (4 - found + 0.5) / (found + 0.5))

    def weight(count: int, length: int) -> float:
        return count * (K1 + 1) / (count + K1 * (1 - B + B * length / mean))

    most = (idf(2) + idf(1)) * (K1 + 1)
    expected = [
        (idf(2) * weight(1, 3) + idf(1) * weight(1, 3)) / most,
        0.0,
        idf(2) * weight(2, 3) / most,
        0.0,
    ]
    assert lexical.tolist() == pytest.approx(expected, rel=1e-6)


def test_all_words_and_unknown_words() -> None:
    matcher = TextMatcher(TEXTS, None, None)
    match = matcher.match("Red, candle!")
    assert match[:, ALL_WORDS].tolist() == [1, 0, 0, 0]
    assert match[:, MEANING].tolist() == [0, 0, 0, 0]
    with_unknown = matcher.match("red candle zebra")
    assert with_unknown[:, ALL_WORDS].tolist() == [0, 0, 0, 0]
    assert 0 < with_unknown[0, LEXICAL] < match[0, LEXICAL]
    assert matcher.match("zebra").abs().sum() == 0
    assert matcher.best("candle", 2).tolist() == [1, 0]  # the shorter text first


def test_an_added_item_matches_and_moves_no_other() -> None:
    matcher = TextMatcher(TEXTS, None, None)
    added = matcher.extended(["green candle"])
    before, after = matcher.match("candle"), added.match("candle")
    torch.testing.assert_close(after[:4], before)
    assert after[4].tolist() == before[1].tolist()
    assert matcher.match("candle").shape == (4, 3)


def test_queries_are_distinct_words_of_the_path_without_stop_words() -> None:
    items = pa.table(
        {
            "item_id": ["a", "b", "c", "d"],
            "category": ["MILK AND CREAM", "MILK AND CREAM", "TEAS", None],
            "type": ["CREAM, WHIPPED", "CREAM, WHIPPED", "GREEN TEA", None],
        }
    )
    found = queries_of_items(items, ["category", "type"], last_words=None, min_items=2)
    assert found.texts == ("milk cream whipped",)
    assert found.of_item.tolist() == [0, 0, -1, -1]
    last = queries_of_items(items, ["type"], last_words=1, min_items=1)
    assert last.texts == ("tea", "whipped")
    with pytest.raises(ConfigError, match="no column 'title'"):
        queries_of_items(items, ["title"], last_words=None, min_items=1)

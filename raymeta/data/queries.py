"""Queries of a log that has none, made of what the items are called.

A purchase log does not say what was searched for. Following Van Gysel et al. (CIKM 2016) and Ai et
al. ("Learning a Hierarchical Embedding Model for Personalized Product Search", SIGIR 2017, section
4.1), the words along an item's path of categories, without stop words and repetitions, are a query
that the item answers, and who bought the item is taken to have asked it. A log without categories
has titles: there the last words are the query, since in a title such as "white hanging heart
t-light holder" what the thing is comes last. A query is made of items' metadata only; no user and
no event has a part in it.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raymeta.errors import ConfigError

_WORD = re.compile(r"[^\W_]+", re.UNICODE)
_STOP_WORDS = frozenset(
    ("a an and as at by for from in misc of on or other per set the to with").split()  # noqa: SIM905
)


@dataclass(frozen=True)
class ItemQueries:
    """The queries of a catalogue.

    Attributes:
        texts: distinct queries `[Q]`, ascending.
        of_item: which of them each item answers, `[I]`; -1 for none.
    """

    texts: tuple[str, ...]
    of_item: NDArray[np.int64]


def words_of(text: str) -> list[str]:
    """Lower-case words and numbers in their order."""
    return _WORD.findall(text.lower())


def item_texts(items: pa.Table, columns: Sequence[str]) -> list[str]:
    """What is known of each item in words, `[I]`: the columns joined, missing ones left out.

    Raises:
        ConfigError: the items have no such column.
    """
    missing = [name for name in columns if name not in items.column_names]
    if missing:
        known = ", ".join(name for name in items.column_names if name != "item_id")
        raise ConfigError(
            f"The items have no column {missing[0]!r}.", remedy=f"They have: {known or 'none'}."
        )
    values = [items[name].to_pylist() for name in columns]
    return [
        ", ".join(str(v) for v in row if v not in (None, "")) for row in zip(*values, strict=True)
    ]


def queries_of_items(
    items: pa.Table, columns: Sequence[str], *, last_words: int | None, min_items: int
) -> ItemQueries:
    """The query that each item answers.

    Args:
        columns: of the path or title, general before special.
        last_words: only the last so many words count; all if None.
        min_items: a query that fewer items answer leaves nothing to order, and is left out.
    """
    asked = [_query(text, last_words) for text in item_texts(items, columns)]
    counts = Counter(asked)
    texts = sorted(q for q, count in counts.items() if q and count >= min_items)
    index = {text: row for row, text in enumerate(texts)}
    return ItemQueries(tuple(texts), np.array([index.get(q, -1) for q in asked], np.int64))


def _query(text: str, last_words: int | None) -> str:
    words = [word for word in words_of(text) if word not in _STOP_WORDS]
    if last_words is not None:
        words = [word for word in words if not word.isdigit()][-last_words:]
    return " ".join(dict.fromkeys(words))

"""How well items answer a query by their words and by their meaning, whoever asks.

Lexical: BM25 (Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009, eq. 3.15),

    sum over query words w of idf_w * tf (k1 + 1) / (tf + k1 (1 - b + b length / mean length)),

with idf_w = log(1 + (N - n_w + .5) / (n_w + .5)), over its largest value for the query, so that it
lies in 0..1 and means the same for short and long queries; and whether an item has all the words.
Meaning: the cosine of the encoder's vectors. One function for training, evaluation and serving.

Shapes: I items, P parts of a match, C candidates.
"""

import copy
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from raymeta.data.queries import item_texts, words_of
from raymeta.models.text_encoder import TextEncoder, cache_folder, encode_cached

K1, B = 1.2, 0.75

MAX_KEPT = 512
"""Queries whose matches are kept: a shop's shoppers ask for the same few again and again."""

LEXICAL, ALL_WORDS, MEANING = 0, 1, 2
NUM_PARTS = 3


class WordIndex:
    """BM25 over short texts; document frequencies are those of the texts it was made of."""

    def __init__(self, texts: Sequence[str]) -> None:
        documents = [words_of(text) for text in texts]
        self._row_of = {w: row for row, w in enumerate(sorted({w for d in documents for w in d}))}
        self._mean_length = max(1.0, float(np.mean([len(d) for d in documents] or [1])))
        self._weights = self._weighted(documents)
        found = np.diff(self._weights.tocsc().indptr)
        self._idf = np.log1p((len(texts) - found + 0.5) / (found + 0.5))

    def extended(self, texts: Sequence[str]) -> "WordIndex":
        """With more texts after the others; words that none of those had stay unknown."""
        made = copy.copy(self)
        added = self._weighted([words_of(text) for text in texts])
        made._weights = sparse.vstack([self._weights, added]).tocsr()
        return made

    def match(self, query: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The lexical share in 0..1 and whether all words are there (0 or 1), `[I]` each.

        A word that no text has counts as one that was not found, with the weight of the rarest.
        """
        asked = list(dict.fromkeys(words_of(query)))
        rows = [self._row_of[word] for word in asked if word in self._row_of]
        num_items = self._weights.shape[0]
        if not rows:
            nothing = np.zeros(num_items, np.float32)
            return nothing, nothing
        idf = self._idf[rows]
        unknown = (len(asked) - len(rows)) * float(self._idf.max())
        most = (idf.sum() + unknown) * (K1 + 1.0)
        columns = self._weights[:, rows]
        lexical = np.asarray(columns @ idf / most, np.float32)
        present = np.diff(columns.tocsr().indptr)
        return lexical, (present == len(asked)).astype(np.float32)

    def _weighted(self, documents: Sequence[Sequence[str]]) -> sparse.csr_array:
        """tf (k1 + 1) / (tf + k1 ...), `[I, words]`."""
        entries = [
            (row, self._row_of[word])
            for row, document in enumerate(documents)
            for word in document
            if word in self._row_of
        ]
        rows, columns = np.array(entries, np.int64).reshape(-1, 2).T
        shape = (len(documents), len(self._row_of))
        counts = sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)
        counts.sum_duplicates()
        lengths = np.array([len(document) for document in documents], float)
        damping = K1 * (1.0 - B + B * lengths / self._mean_length)
        row_of_entry = np.repeat(np.arange(len(documents)), np.diff(counts.indptr))
        counts.data = counts.data * (K1 + 1.0) / (counts.data + damping[row_of_entry])
        return counts


class TextMatcher:
    """Matches of queries with the items of one catalogue.

    Args:
        texts: of the items, `[I]`.
        vectors: of the same texts, `[I, D]`; None without an encoder.
        encoder: what made them.
    """

    def __init__(
        self, texts: Sequence[str], vectors: Tensor | None, encoder: TextEncoder | None
    ) -> None:
        self.texts, self.vectors, self._encoder = tuple(texts), vectors, encoder
        self._words = WordIndex(texts)
        self._kept: OrderedDict[str, Tensor] = OrderedDict()
        self._known: dict[str, Tensor] = {}

    @classmethod
    def of(
        cls, items: pa.Table, columns: Sequence[str], *, encoder: TextEncoder | None
    ) -> "TextMatcher":
        """Of the items' columns; vectors are read from the cache, or made and kept there."""
        texts = item_texts(items, columns)
        vectors = None if encoder is None else encode_cached(encoder, texts, cache_folder())
        return cls(texts, vectors, encoder)

    @property
    def encoder_sha256(self) -> str | None:
        """Of the encoder's weights; None without one."""
        return None if self._encoder is None else self._encoder.sha256

    def prepare(self, queries: Sequence[str]) -> None:
        """Encodes many queries at once, ahead of their matches."""
        if self._encoder is not None:
            vectors = encode_cached(self._encoder, queries, cache_folder())
            self._known.update(zip(queries, vectors, strict=True))

    def has(self, query: str) -> bool:
        """Whether a query's match is at hand."""
        return query in self._kept

    def match(self, query: str) -> Tensor:
        """`[I, P]` float32: lexical share, all words, cosine (0 without an encoder)."""
        kept = self._kept.get(query)
        if kept is None:
            lexical, all_words = self._words.match(query)
            meaning = torch.zeros(len(self.texts))
            if self.vectors is not None and self._encoder is not None:
                asked = self._known.get(query)
                asked = self._encoder.encode([query])[0] if asked is None else asked
                meaning = self.vectors @ asked
            parts = [torch.from_numpy(lexical), torch.from_numpy(all_words), meaning]
            self._kept[query] = kept = torch.stack(parts, dim=1)
            if len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
        return kept

    def best(self, query: str, num_candidates: int) -> Tensor:
        """Indices `[C]` of the items that match best, all words first; ties by index."""
        match = self.match(query)
        order = torch.sort(match @ match.new_tensor([1.0, 2.0, 1.0]), descending=True, stable=True)
        return order.indices[:num_candidates]

    def extended(self, texts: Sequence[str]) -> "TextMatcher":
        """With more items after those that it has."""
        made = TextMatcher.__new__(TextMatcher)
        made.texts, made.vectors, made._encoder = (
            self.texts + tuple(texts),
            self.vectors,
            self._encoder,
        )
        made._words, made._kept, made._known = self._words.extended(texts), OrderedDict(), {}
        if self.vectors is not None and self._encoder is not None:
            made.vectors = torch.cat([self.vectors, self._encoder.encode(list(texts))])
        return made

"""Order of a query's hits for one user: text, popularity and what the user's events say, mixed.

    score(u, q, j) = sum over parts p of a_p(n_u) part_p(u, q, j)

with n_u the rows of the user's support and a_p linear in log(1 + n) between a few sizes, where the
weights are meta-learned, so that what to trust can change with how much is known. The parts:

    lexical, all words, meaning    how j answers q (`text_match`)
    popularity                     log of j's share of the training users, to the mean share
    taste                          what the user's adapted context adds (`factorization`)
    neighbours                     items bought by the same users (`neighbours`)
    bought, is bought              1 + log count of the user's rows of j; 1 where there is one
    bought lately                  exp(-age / 30 days) of the last of them
    a part for each feature field  how j agrees with the user's rows (`field_affinity`)
    the same among the hits        from the rows that answer this query alone: which milk

Weights are learned by the listwise softmax of the later purchases (Cao et al., ListNet, ICML 2007),
which is convex in them; taste and neighbours stay as their own models have them. Attention of a
user's history to the query as in Ai et al., "A Zero Attention Model for Personalized Product
Search", CIKM 2019; here it picks among the hits, and the weights are few enough for two thousand
users.

What differs per request joins the state under `QUERY_MATCH` for one call of `score`.

Shapes: S support rows, N queries of a task, C candidates of a query, P parts, F fields, K sizes.
"""

import torch
from torch import Tensor

from raymeta.models.factorization import Factorization
from raymeta.models.field_affinity import FieldAffinity
from raymeta.models.neighbours import Neighbours
from raymeta.models.text_match import LEXICAL, NUM_PARTS
from raymeta.types import Examples, Params

QUERY_MATCH = "query_match"
"""`[T, C, P]`: how each candidate answers the query, in the order of `candidates`."""

SIZES = (0, 4, 16, 64, 256)
"""Rows of a support at which the weights are learned."""

_PARTS = {
    "lexical": (1.0, 2.0),
    "all_words": (8.0, 1.5),
    "meaning": (4.0, 1.0),
    "popularity": (0.7, 0.7),
    "taste": (0.5, 0.0),
    "neighbours": (200.0, 1.1),
    "bought": (1.0, 0.5),
    "is_bought": (1.0, 0.5),
    "bought_lately": (1.0, 0.5),
}
_FIELD = (0.5, 0.7)
"""The weight in which a part counts about as much as the others, and in these units where learning
starts: near where it ended on one fold of two shops."""

_BOUGHT = list(_PARTS).index("bought") - NUM_PARTS
"""Its place among the parts that no query has a part in."""

RECENT_DAYS = 30.0

_ROW_ITEM, _ROW_OFTEN, _ROW_LATELY, _SIZE = "row_item", "row_often", "row_lately", "support_rows"


class PersonalSearch:
    """The model of a user's taste with a mixture for searches on top.

    Args:
        taste: adapts a user's context; scores without a query are its.
        neighbours: of the items.
        fields: how items agree by their features.
    """

    def __init__(self, taste: Factorization, neighbours: Neighbours, fields: FieldAffinity) -> None:
        self._taste, self._neighbours, self._fields = taste, neighbours, fields
        self.adaptable, self.head = taste.adaptable, taste.head
        parts = [*_PARTS.values(), *[_FIELD] * (2 * fields.num_fields)]
        like = taste.start.item_prior
        self._units, self._start = (like.new_tensor(side) for side in zip(*parts, strict=True))

    def init(self, generator: torch.Generator) -> Params:
        """The taste's start, and a mixture that is the same for every size."""
        start = self._taste.init(generator)
        return {**start, "mixture": self._start.expand(len(SIZES), -1).clone()}

    def tables(self) -> Params:
        return {**self._taste.tables(), **self._fields.tables()}

    def serving(self) -> "PersonalSearch":
        """The same model in the columns that are served."""
        taste = self._taste.serving()
        return PersonalSearch(taste, self._neighbours.of_columns(taste.start), self._fields)

    def serving_params(self, params: Params) -> Params:
        """Parameters of this model as those of `serving`."""
        return self._taste.serving_params(params)

    def shared(self, params: Params) -> Params:
        return self._taste.shared(params)

    def given(self, params: Params, support: Examples) -> Params:
        """The rows of a user's support as a search reads them; a part of the state."""
        mask = support["mask"]
        often = torch.where(mask, 1.0 + support["count"].clamp(min=1.0).log(), 0.0)
        lately = torch.where(mask, torch.exp(-support["age_days"] / RECENT_DAYS), 0.0)
        return {
            **self._taste.given(params, support),
            **self._neighbours.given(support, mask.to(often.dtype)),
            _ROW_ITEM: torch.where(mask, support["item"], 0),
            _ROW_OFTEN: often,
            _ROW_LATELY: lately,
            _SIZE: mask.sum().to(often.dtype),
        }

    def support_loss(self, params: Params, shared: Params, support: Examples) -> Tensor:
        return self._taste.support_loss(params, shared, support)

    def query_loss(
        self, params: Params, shared: Params, support: Examples, query: Examples
    ) -> Tensor:
        """Mean over a task's queries of -log softmax of what was bought among the candidates.

        `query` has `candidates` `[N, C]`, `match` `[N, C, P]`, `relevant` `[N, C]`, `asked` `[N]`.
        """
        params = {**params, **self.given(params, support)}
        every = torch.arange(self._taste.num_items, device=query["candidates"].device)
        of_items = self._of_items(params, shared, every, support)
        scores = torch.stack(
            [
                self._mixed(params, of_items[candidates], candidates, match)
                for candidates, match in zip(query["candidates"], query["match"], strict=True)
            ]
        )
        relevant = query["relevant"]
        per_query = -(scores.log_softmax(-1) * relevant).sum(-1) / relevant.sum(-1).clamp(min=1.0)
        asked = query["asked"].to(scores.dtype)
        return (per_query * asked).sum() / asked.sum().clamp(min=1.0)

    def score(self, params: Params, shared: Params, candidates: Tensor | None) -> Tensor:
        """With a query's match among `params` the hits' scores; else those of the taste alone."""
        if QUERY_MATCH not in params or candidates is None:
            return self._taste.score(params, shared, candidates)
        of_items = self._of_items(params, shared, candidates, None)
        return self._mixed(params, of_items, candidates, params[QUERY_MATCH])

    def _of_items(
        self, params: Params, shared: Params, items: Tensor, support: Examples | None
    ) -> Tensor:
        """The parts that no query has a part in, of some items, `[C, 6 + F]`.

        Args:
            support: given in training, where a user is taken out of what it is judged with.
        """
        vectors, prior = self._taste.of_items(items)
        if support is not None:
            prior = prior + self._taste.prior_correction(support)[items]
        rows, often = params[_ROW_ITEM], params[_ROW_OFTEN]
        bought = self._at(items, rows, often)
        parts = [
            prior,
            vectors @ self._taste.direction(params, shared, support),
            self._neighbours.score(params, rows, items, vectors, support),
            bought,
            (bought > 0).to(bought.dtype),
            self._at(items, rows, params[_ROW_LATELY]),
        ]
        fields = self._fields(rows, often, items)
        # weights alone are learned: each part is what its own model makes of the user
        return torch.cat([torch.stack(parts, -1), fields], -1).detach()

    def _mixed(self, params: Params, of_items: Tensor, candidates: Tensor, match: Tensor) -> Tensor:
        """Scores `[C]` from the candidates' parts and how they answer the query."""
        bought, lexical = of_items[:, _BOUGHT], match[:, LEXICAL]
        among_hits = self._fields.among_hits(bought, candidates, lexical)
        parts = torch.cat([match, of_items, among_hits], -1) * self._units
        return parts @ weights_at(params["mixture"], params[_SIZE])

    def _at(self, items: Tensor, rows: Tensor, values: Tensor) -> Tensor:
        """The sum of `values` `[S]` over the rows of each of some items, `[C]`."""
        return values.new_zeros(self._taste.num_items).index_add(0, rows, values)[items]


def weights_at(table: Tensor, num_rows: Tensor) -> Tensor:
    """The rows of `table` `[K, P]` at `SIZES`, and between them, linear in log(1 + n): `[P]`.

    More rows than the largest size count as that.
    """
    places = torch.log1p(table.new_tensor(SIZES))
    place = torch.log1p(num_rows).clamp(max=places[-1])
    steps = places.diff()
    # how far each step up has been taken, 0..1; a size's weight is what the next has not yet
    taken = ((place - places[:-1]) / steps).clamp(0.0, 1.0)
    return table[0] + taken @ table.diff(dim=0)

"""Order of a query's hits for one user: text, popularity and adapted taste, mixed by a few weights.

score(u, q, j) = sum over parts p of (a_p + b_p g(n_u)) part_p(u, q, j), g(n) = log(1 + n) / log 32,

with n_u the rows of the user's support, so that taste weighs more the more is known. The parts:

    lexical, all words, meaning    how j answers q (`text_match`)
    popularity                     log of j's share of the training users, to the mean share
    taste                          what the user's adapted context adds (`factorization`)
    taste among the hits           the same from the rows that answer this query alone, each
                                   weighted by exp(beta (lexical - 1)): which milk, not what else
    bought                         (1 + log count) exp(-decay weeks), over the user's rows of j

A and b, beta and the decay are meta-learned beside what `factorization` learns, by the listwise
softmax of the later purchases (Cao et al., ListNet, ICML 2007). Attention of a user's history to
the query as in Ai et al., "A Zero Attention Model for Personalized Product Search", CIKM 2019; here
it picks among the hits, and the weights are few enough for two thousand users.

What differs per request joins the state under `QUERY_MATCH` for one call of `score`.

Shapes: S support rows, N queries of a task, C candidates of a query, P parts of a text match.
"""

import math

import torch
from torch import Tensor

from raymeta.models.factorization import Factorization
from raymeta.models.text_match import LEXICAL, NUM_PARTS
from raymeta.types import Examples, Params

QUERY_MATCH = "query_match"
"""`[T, C, P]`: how each candidate answers the query, in the order of `candidates`."""

PARTS = ("lexical", "all_words", "meaning", "popularity", "taste", "taste_among_hits", "bought")

# near what a mixture of the same parts is tuned to on validation users, where there is one
_START = (0.5, 8.0, 4.0, 1.0, 1.0, 1.0, 3.0)
_ROW_ITEM, _ROW_WEIGHT, _ROW_BOUGHT, _SIZE = "row_item", "row_weight", "row_bought", "support_rows"


class PersonalSearch:
    """The model of a user's taste with a mixture for searches on top.

    Args:
        taste: adapts a user's context; scores without a query are its.
    """

    def __init__(self, taste: Factorization) -> None:
        self._taste = taste
        self.adaptable, self.head = taste.adaptable, taste.head

    def init(self, generator: torch.Generator) -> Params:
        """The taste's start, and a mixture in which everything has a part."""
        start = self._taste.init(generator)
        like = start["context"]
        return {
            **start,
            "mix": like.new_tensor(_START),
            "mix_by_size": like.new_zeros(len(_START)),
            "focus": like.new_tensor(2.0),
            "bought_decay": like.new_tensor(0.0),
        }

    def tables(self) -> Params:
        return self._taste.tables()

    def serving(self) -> "PersonalSearch":
        """The same model in the columns that are served."""
        return PersonalSearch(self._taste.serving())

    def serving_params(self, params: Params) -> Params:
        """Parameters of this model as those of `serving`."""
        return self._taste.serving_params(params)

    def shared(self, params: Params) -> Params:
        return self._taste.shared(params)

    def given(self, params: Params, support: Examples) -> Params:
        """The rows of a user's support as a search reads them; a part of the state."""
        mask = support["mask"]
        recency = torch.exp(-params["bought_decay"] * support["age_days"] / 7.0)
        often = 1.0 + support["count"].clamp(min=1.0).log()
        return {
            **self._taste.given(params, support),
            _ROW_ITEM: torch.where(mask, support["item"], 0),
            _ROW_WEIGHT: self._taste.row_weights(params, support),
            _ROW_BOUGHT: torch.where(mask, often * recency, 0.0),
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
        scores = torch.stack(
            [
                self._mixed(params, shared, query["candidates"][n], query["match"][n], support)
                for n in range(query["candidates"].shape[0])
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
        return self._mixed(params, shared, candidates, params[QUERY_MATCH], None)

    def _mixed(
        self,
        params: Params,
        shared: Params,
        candidates: Tensor,
        match: Tensor,
        support: Examples | None,
    ) -> Tensor:
        """`[C]`; `support` is given in training, where a user is taken out of what it is judged
        with."""
        vectors, prior = self._taste.of_items(candidates)
        if support is not None:
            prior = prior + self._taste.prior_correction(support)[candidates]
        bought = _at(candidates, params[_ROW_ITEM], params[_ROW_BOUGHT], self._taste.num_items)
        weight = _at(candidates, params[_ROW_ITEM], params[_ROW_WEIGHT], self._taste.num_items)
        attended = weight * torch.exp(params["focus"] * (match[:, LEXICAL] - 1.0))
        context = self._taste.filter(params, shared) * (attended @ vectors)
        parts = [
            *match.unbind(-1),
            prior,
            vectors @ self._taste.direction(params, shared, support),
            vectors @ self._taste.direction({**params, "context": context}, shared, support),
            bought,
        ]
        grown = torch.log1p(params[_SIZE]) / math.log(32.0)
        return (params["mix"] + params["mix_by_size"] * grown) @ torch.stack(parts)


def _at(candidates: Tensor, items: Tensor, values: Tensor, num_items: int) -> Tensor:
    """The sum of `values` `[S]` on each candidate, `[C]`."""
    return values.new_zeros(num_items).index_add(0, items, values)[candidates]


assert len(PARTS) == len(_START) == NUM_PARTS + 4

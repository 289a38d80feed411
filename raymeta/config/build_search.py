"""The part of `build` that puts a model for searches together."""

from torch import Tensor

from raymeta.config.models import FactorizationConfig
from raymeta.data.features import FeatureVocab
from raymeta.models.factorization import Factorization
from raymeta.models.field_affinity import FieldAffinity
from raymeta.models.neighbours import Neighbours
from raymeta.models.personal_search import PersonalSearch

EXPONENT, SHRINK = 0.75, 30.0
"""Of the neighbours' cosines: the best of six pairs on validation users, by little."""


def build_search(
    config: FactorizationConfig,
    taste: Factorization,
    vocab: FeatureVocab,
    *,
    index: Tensor,
    weight: Tensor,
) -> PersonalSearch:
    """The mixture on top of a taste.

    Args:
        vocab: how items' features are read.
        index, weight: those features, `[I, W]`.
    """
    neighbours = Neighbours(
        taste.start, item_exponent=config.item_exponent, exponent=EXPONENT, shrink=SHRINK
    )
    share = taste.start.item_prior.exp()
    fields = FieldAffinity.of(vocab, index, weight, share=share)
    return PersonalSearch(taste, neighbours, fields)

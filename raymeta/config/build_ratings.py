"""The part of `build` that puts a regression of ratings together."""

import numpy as np
import torch

from raymeta.config.models import RatingRegressionConfig
from raymeta.data.features import FeatureVocab
from raymeta.data.rating_factors import grouped_vectors
from raymeta.data.ratings import fit_biases, rated
from raymeta.data.task_split import TaskSplit
from raymeta.models.rating_regression import RatedItems, RatingRegression
from raymeta.types import Params

MAX_LEVELS = 20
"""Ratings of more different values are a number rather than one of a few levels."""


def build_rating_regression(config: RatingRegressionConfig, items: RatedItems) -> RatingRegression:
    """The model over a catalogue."""
    return RatingRegression(
        items, item_shrinkage=config.item_shrinkage, outer_loss=config.outer_loss
    )


def rated_items(config: RatingRegressionConfig, split: TaskSplit) -> RatedItems:
    """The catalogue's features, and what training users thought of each item."""
    biases = fit_biases(
        split.train, num_items=len(split.catalogue), positive_types=split.positive_types
    )
    _, ratings = rated(split.train, positive_types=split.positive_types)
    levels = np.unique(ratings)
    features = split.catalogue.features
    vectors = grouped_vectors(
        split.train,
        biases,
        positive_types=split.positive_types,
        dim=config.vector_dim,
        regularisation=config.vector_regularisation,
    )
    return RatedItems(
        torch.from_numpy(features.index),
        torch.from_numpy(features.weight),
        torch.from_numpy(np.stack([biases.counts, biases.totals], 1)).float(),
        torch.tensor(biases.mean),
        torch.tensor(float(np.log1p(biases.counts).mean())),
        torch.from_numpy(levels if len(levels) <= MAX_LEVELS else levels[:0]).float(),
        split.catalogue.vocab.num_rows,
        torch.from_numpy(vectors).float(),
    )


def restore_rated_items(tables: Params, vocab: FeatureVocab) -> RatedItems:
    """The same from the tables of an artifact."""
    return RatedItems(
        tables["item_index"],
        tables["item_weight"],
        tables["item_counts"],
        tables["mean_rating"],
        tables["mean_log_count"],
        tables["levels"],
        vocab.num_rows,
        tables["rated_vectors"][None],
    )

"""The one table from names in a config to objects; components themselves take plain arguments."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from raymeta.algorithms import presets
from raymeta.algorithms.gradient_based import GradientBased
from raymeta.config.algorithms import AlgorithmConfig, CaviaConfig, RidgeConfig
from raymeta.config.build_intent import build_purchase_intent, restore_purchase_intent
from raymeta.config.build_ratings import (
    build_rating_regression,
    rated_items,
    restore_rated_items,
)
from raymeta.config.build_search import build_search
from raymeta.config.build_sequence import (
    build_factorization,
    build_sequence,
    count_places,
    required_pretrained,
    start_of,
    state_width,
)
from raymeta.config.experiment import ExperimentConfig
from raymeta.config.models import (
    CtrConfig,
    FactorizationConfig,
    PreferenceMlpConfig,
    PurchaseIntentConfig,
    RatingRegressionConfig,
    SequenceConfig,
)
from raymeta.config.scenario import SeveralConfig
from raymeta.data.episodes import labelled_impressions
from raymeta.data.features import NO_FEATURES, EncodedFeatures, FeatureVocab
from raymeta.data.interactions import InteractionMatrix
from raymeta.data.ratings import rated, shrunk_means
from raymeta.data.task_split import TaskSplit
from raymeta.inner.rules import UpdateRule, adam, clipped, momentum, stopped_early
from raymeta.models.base import TaskModel
from raymeta.models.cooccurrence import cooccurrence
from raymeta.models.ctr import Ctr, ItemCounts
from raymeta.models.embeddings import FieldEmbedding
from raymeta.models.factorization import Factorization
from raymeta.models.field_affinity import ITEM_INDEX, ITEM_WEIGHT
from raymeta.models.multi_task import MultiTask
from raymeta.models.place_prior import ITEM_VECTORS as PLACE_ITEM_VECTORS
from raymeta.models.place_prior import PlacePrior
from raymeta.models.preference_mlp import (
    ItemFeatures,
    PreferenceMlp,
    hashed_noise,
)
from raymeta.models.sequence import ITEM_VECTORS
from raymeta.types import Params

ALGORITHMS: dict[str, Callable[..., GradientBased]] = {
    "maml": presets.maml,
    "fomaml": presets.fomaml,
    "reptile": presets.reptile,
    "anil": presets.anil,
    "boil": presets.boil,
    "meta_sgd": presets.meta_sgd,
    "maml_plus_plus": presets.maml_plus_plus,
    "cavia": presets.cavia,
    "imaml": presets.imaml,
    "melu": presets.melu,
    "fine_tuning": presets.fine_tuning,
    "ridge": presets.ridge,
}
OPTIMIZERS: dict[str, Callable[[float], UpdateRule]] = {"momentum": momentum, "adam": adam}

MAX_TRAINING_VALUES = 2**24
"""Item vectors are as wide in training as so many values (67 MB) allow, and at least as in serving:
a training user is left out of them exactly where they span the whole log."""


def build_algorithm(
    experiment: ExperimentConfig, split: TaskSplit, *, pretrained: Params | None = None
) -> GradientBased:
    """The learner of an experiment, its tables counted on the training users.

    Args:
        pretrained: for `sequence`, what `raymeta.train.pretrain` found on the same users.

    Raises:
        ConfigError: the model is a `sequence` and nothing was pretrained.
    """
    config = experiment.model
    if isinstance(config, SequenceConfig):
        base = build_base(experiment, split).model
        tables = {**base.tables(), **required_pretrained(pretrained)}
        sequence = build_sequence(
            config, tables, num_event_types=len(split.event_types), places=count_places(split)
        )
        return _algorithm(experiment.algorithm, sequence)
    if isinstance(config, PurchaseIntentConfig):
        return _algorithm(experiment.algorithm, build_purchase_intent(config, split))
    matrix = InteractionMatrix.from_histories(
        split.train, num_items=len(split.catalogue), positive_types=split.positive_types
    )
    if isinstance(config, FactorizationConfig):
        width = max(config.dim, MAX_TRAINING_VALUES // max(1, matrix.num_items))
        start = cooccurrence(matrix.users_items, dim=width, item_exponent=config.item_exponent)
        model = build_factorization(
            config, start, num_event_types=len(split.event_types), places=count_places(split)
        )
        vocab, described = split.catalogue.vocab, _item_features(split.catalogue.features)
        return _algorithm(experiment.algorithm, _trained_for(experiment, model, vocab, described))
    features = split.catalogue.features
    if isinstance(config, CtrConfig):
        counts = ItemCounts(*_tensors(features), *_impression_counts(split))
        ctr = _ctr(config, counts, split.catalogue.vocab, split.user_vocab)
        return _algorithm(experiment.algorithm, ctr)
    if isinstance(config, RatingRegressionConfig):
        rating_model = build_rating_regression(config, rated_items(config, split))
        return _algorithm(experiment.algorithm, rating_model)
    baseline = _item_baseline(config, split, matrix)
    noise = None
    if config.feedback == "implicit":
        popularity = torch.from_numpy(matrix.log_popularity)
        noise = hashed_noise(popularity, num_noise=config.num_noise)
    items = ItemFeatures(*_tensors(features), baseline, noise)
    estimator = _preference_mlp(config, items, split.catalogue.vocab, split.user_vocab)
    return _algorithm(experiment.algorithm, estimator)


def build_base(experiment: ExperimentConfig, split: TaskSplit) -> GradientBased:
    """The learner of the factorization that a `sequence` adds to, as if it were alone: a context
    adapted as the experiment adapts."""
    assert isinstance(experiment.model, SequenceConfig)
    inner = experiment.algorithm
    assert not isinstance(inner, RidgeConfig)
    alone = CaviaConfig(inner_lr=inner.inner_lr, num_inner_steps=inner.num_inner_steps)
    changed = {"model": experiment.model.base, "algorithm": alone}
    return build_algorithm(experiment.model_copy(update=changed), split)


def restore_algorithm(
    experiment: ExperimentConfig,
    tables: Params,
    *,
    item_vocab: FeatureVocab,
    user_vocab: FeatureVocab | None,
) -> GradientBased:
    """The learner of an artifact, from the tables and vocabularies it carries."""
    config = experiment.model
    if isinstance(config, FactorizationConfig):
        places = PlacePrior.restore(tables)
        factorization = build_factorization(config, start_of(tables), places=places)
        search_or_taste = _for_scenarios(experiment, factorization, item_vocab, tables)
        return _algorithm(experiment.algorithm, search_or_taste)
    if isinstance(config, SequenceConfig):
        sequence = build_sequence(config, tables, places=PlacePrior.restore(tables))
        return _algorithm(experiment.algorithm, sequence)
    if isinstance(config, CtrConfig):
        counts = ItemCounts(
            tables["item_index"],
            tables["item_weight"],
            tables["item_counts"],
            tables["slot_counts"],
        )
        return _algorithm(experiment.algorithm, _ctr(config, counts, item_vocab, user_vocab))
    if isinstance(config, RatingRegressionConfig):
        rated_table = restore_rated_items(tables, item_vocab)
        return _algorithm(experiment.algorithm, build_rating_regression(config, rated_table))
    if isinstance(config, PurchaseIntentConfig):
        return _algorithm(experiment.algorithm, restore_purchase_intent(config, tables))
    items = ItemFeatures(
        tables["item_index"],
        tables["item_weight"],
        tables["item_baseline"],
        tables.get("noise"),
    )
    model = _preference_mlp(config, items, item_vocab, user_vocab)
    return _algorithm(experiment.algorithm, model)


def user_state_bytes(experiment: ExperimentConfig) -> int | None:
    """Bytes of one user's adapted state; None where they depend on the features of the data."""
    config = experiment.model
    if isinstance(config, SequenceConfig):
        return 4 * (state_width(config.base, experiment.data) + config.item_dim)
    if isinstance(config, FactorizationConfig):
        return 4 * state_width(config, experiment.data)
    return None


def encoded_tables(experiment: ExperimentConfig, tables: Params) -> Params:
    """Those of a learner's tables that an item encoder reads off an item's features.

    Item vectors in the log's own scale, W s^(1/2), so that an error counts as much as it matters.
    """
    if experiment.model.name == "preference_mlp":
        return {"item_baseline": tables["item_baseline"]}
    if experiment.model.name in ("ctr", "rating_regression"):
        return {}  # the model itself expects something of features; a new item has no counts
    if experiment.model.name == "purchase_intent":
        return {}  # a new item's category is one of its columns
    vectors = tables["item_vectors"] * start_of(tables).column_spectrum.sqrt()
    encoded = {"item_vectors": vectors, "item_prior": tables["item_prior"]}
    named = (ITEM_VECTORS, PLACE_ITEM_VECTORS)
    return {**encoded, **{name: tables[name] for name in named if name in tables}}


def item_weights(experiment: ExperimentConfig, tables: Params) -> Tensor:
    """How much each item counts where an encoder is fitted, `[I]`: as it sells, where known."""
    config = experiment.model
    if isinstance(config, CtrConfig | RatingRegressionConfig):
        return tables["item_counts"][:, 0].clone()
    if isinstance(config, PurchaseIntentConfig):
        return torch.ones(len(tables["category_of_item"]))
    if not isinstance(config, PreferenceMlpConfig):
        return tables["item_prior"].softmax(0)
    if config.feedback == "implicit":
        return tables["item_baseline"].softmax(0)
    return torch.ones_like(tables["item_baseline"])


def extend_tables(
    experiment: ExperimentConfig,
    tables: Params,
    rows: Params,
    *,
    features: EncodedFeatures,
) -> Params:
    """A learner's tables with new items after those that they have.

    Args:
        rows: what the item encoder gives the new items in `encoded_tables`, and what else is
            known of them by a table's name.
        features: of the new items.
    """
    if experiment.model.name in ("preference_mlp", "ctr", "rating_regression"):
        index, weight = _tensors(features)
        rows = {**rows, "item_index": index, "item_weight": weight}
        for name in {"item_counts", "rated_vectors"} & tables.keys():
            rows[name] = tables[name].new_zeros(len(index), tables[name].shape[1])
    elif experiment.model.name != "purchase_intent":
        scale = start_of(tables).column_spectrum.sqrt()
        rows = {**rows, "item_vectors": rows["item_vectors"] / scale}
        if ITEM_INDEX in tables:
            rows = {**rows, **_item_features(features)}
    return {
        name: torch.cat([table, rows[name].to(table)]) if name in rows else table
        for name, table in tables.items()
    }


def extend_params(experiment: ExperimentConfig, meta_params: Params, num_added: int) -> Params:
    """Meta-parameters with nothing learned for new items where there is one an item."""
    by_item = ("item_own",) if experiment.model.name == "preference_mlp" else ()
    return {
        name: torch.cat([value, value.new_zeros(num_added, *value.shape[1:])])
        if name in by_item
        else value
        for name, value in meta_params.items()
    }


def _for_scenarios(
    experiment: ExperimentConfig, taste: Factorization, vocab: FeatureVocab, described: Params
) -> TaskModel:
    """The model of a taste, with what a search puts on top where there are any."""
    config = experiment.model
    if experiment.search is None or not isinstance(config, FactorizationConfig):
        return taste
    index, weight = described[ITEM_INDEX], described[ITEM_WEIGHT]
    return build_search(config, taste, vocab, index=index, weight=weight)


def _trained_for(
    experiment: ExperimentConfig, taste: Factorization, vocab: FeatureVocab, described: Params
) -> TaskModel:
    """The same as it is trained: with the losses of all the scenarios of the run."""
    model = _for_scenarios(experiment, taste, vocab, described)
    if not isinstance(experiment.scenario, SeveralConfig):
        return model
    losses = {"recommend": taste.query_loss, "search": model.query_loss}
    weights = experiment.scenario.weights
    return MultiTask(
        model,
        {scenario.name: losses[scenario.name] for scenario in experiment.scenarios},
        weights=None if weights == "learned" else weights,
    )


def _item_features(features: EncodedFeatures) -> Params:
    return dict(zip((ITEM_INDEX, ITEM_WEIGHT), _tensors(features), strict=True))


def _preference_mlp(
    config: PreferenceMlpConfig,
    items: ItemFeatures,
    item_vocab: FeatureVocab,
    user_vocab: FeatureVocab | None,
) -> PreferenceMlp:
    return PreferenceMlp(
        items,
        item_embedding=_embedding(item_vocab, config.embedding_dim),
        user_embedding=_embedding(user_vocab or NO_FEATURES, config.embedding_dim),
        hidden_width=config.hidden_dim,
        fast_first_layer=config.fast_first_layer,
        item_ids=config.item_ids,
    )


def _ctr(
    config: CtrConfig, items: ItemCounts, item_vocab: FeatureVocab, user_vocab: FeatureVocab | None
) -> Ctr:
    return Ctr(
        items,
        item_embedding=_embedding(item_vocab, config.embedding_dim),
        user_embedding=_embedding(user_vocab or NO_FEATURES, config.embedding_dim),
        hidden_width=config.hidden_dim,
    )


def _impression_counts(split: TaskSplit) -> tuple[Tensor, Tensor]:
    """Impressions, clicks and conversions of each item `[I, 3]`, and impressions by slot `[N]`."""
    shown = labelled_impressions(split.train, split.view)
    num_items = len(split.catalogue)
    counts = [
        np.bincount(shown.item, weights=weights, minlength=num_items)
        for weights in (None, shown.click, shown.conversion)
    ]
    slots = np.bincount(shown.value.astype(np.int64))
    return torch.from_numpy(np.stack(counts, 1)).float(), torch.from_numpy(slots).float()


def _embedding(vocab: FeatureVocab, width: int) -> FieldEmbedding:
    return FieldEmbedding(num_rows=vocab.num_rows, field_of_slot=vocab.field_of_slot, width=width)


def _item_baseline(
    config: PreferenceMlpConfig, split: TaskSplit, matrix: InteractionMatrix
) -> Tensor:
    if config.feedback == "implicit":
        item = torch.from_numpy(matrix.log_popularity)
        return item if config.baseline == "item" else torch.zeros_like(item)
    items, ratings = rated(split.train, positive_types=split.positive_types)
    means = shrunk_means(items, ratings, num_items=len(split.catalogue))
    baseline = torch.from_numpy(means).float()
    return baseline if config.baseline == "item" else torch.full_like(baseline, ratings.mean())


def _tensors(features: EncodedFeatures) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(features.index), torch.from_numpy(features.weight)


def _algorithm(config: AlgorithmConfig, model: TaskModel) -> GradientBased:
    of_the_rule = {"inner_optimizer", "max_inner_gradient_norm", "min_inner_gradient_norm"}
    choices = config.model_dump(exclude={"name", *of_the_rule})
    learner = ALGORITHMS[config.name](model, **choices)
    return replace(learner, rule=_rule(config, learner.rule))


def _rule(config: AlgorithmConfig, rule: UpdateRule) -> UpdateRule:
    """The preset's rule, or the optimiser that the settings name, wrapped as they say."""
    if isinstance(config, RidgeConfig):
        return rule  # of no steps
    optimizer = getattr(config, "inner_optimizer", "sgd")  # learned rates have no choice of one
    if optimizer != "sgd":
        rule = OPTIMIZERS[optimizer](config.inner_lr)
    if config.max_inner_gradient_norm is not None:
        rule = clipped(rule, max_norm=config.max_inner_gradient_norm)
    if config.min_inner_gradient_norm is not None:
        rule = stopped_early(rule, min_gradient_norm=config.min_inner_gradient_norm)
    return rule

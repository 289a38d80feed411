"""The part of `build` that puts a factorization, and a Transformer beside it, together."""

from collections.abc import Mapping
from dataclasses import fields

import torch

from raymeta.adapters.film import with_film
from raymeta.adapters.lora import with_lora
from raymeta.config.data import DataConfig
from raymeta.config.models import FactorizationConfig, SequenceConfig
from raymeta.data.events import placed_items
from raymeta.data.task_split import TaskSplit
from raymeta.errors import ConfigError
from raymeta.models.cooccurrence import Cooccurrence
from raymeta.models.factorization import Factorization
from raymeta.models.next_items import ItemTables, NextItems, SequenceBody
from raymeta.models.place_prior import PlacePrior
from raymeta.models.sequence import BODY, GATE, ITEM_VECTORS, PREFIX, Sequence
from raymeta.types import Params

_LORA_LAYERS = ("encoder.blocks.*.attention.query", "encoder.blocks.*.attention.value")
_ITEMS_AT_ONCE = 4096
_START_TABLES = tuple(field.name for field in fields(Cooccurrence))
_FILM_LAYERS = ("encoder.blocks.*.network.down", "readout.leave")


def build_factorization(
    config: FactorizationConfig,
    start: Cooccurrence,
    *,
    num_event_types: int = 1,
    places: PlacePrior | None = None,
) -> Factorization:
    """The co-occurrence model."""
    return Factorization(
        start,
        num_event_types=num_event_types,
        regularisation=config.regularisation,
        serving_dim=config.dim,
        ridge_by_size=config.ridge_by_size,
        item_exponent=config.item_exponent,
        places=places,
        place_dim=config.place_dim,
        outer_loss=config.outer_loss,
    )


def state_width(config: FactorizationConfig, data: DataConfig) -> int:
    """Numbers of a user's own: the context, how much is known, the places."""
    size_of_support = 1 if config.ridge_by_size is not None else 0
    return config.dim + size_of_support + min(config.place_dim, data.max_places)


def count_places(split: TaskSplit) -> PlacePrior | None:
    """How places sell to training users; None where adapting does not see places."""
    if not split.view.places:
        return None
    items, places = placed_items(split.train, split.positive_types)
    return PlacePrior.count(places, items, (len(split.view.places), len(split.catalogue)))


def build_next_items(
    config: SequenceConfig, split: TaskSplit, start: Cooccurrence, *, seed: int
) -> NextItems:
    """The Transformer before pretraining; item vectors start as directions of co-occurrence.

    Where the catalogue or the log has fewer directions than the vectors are wide, the rest is 0.
    """
    scaled = start.item_vectors * start.column_spectrum.sqrt()
    vectors = scaled.new_zeros(len(scaled), config.item_dim)
    width = min(scaled.shape[1], config.item_dim)
    vectors[:, :width] = torch.nn.functional.normalize(scaled[:, :width], dim=1)
    features, training = split.catalogue.features, config.pretraining
    items = ItemTables(
        vectors,
        torch.from_numpy(features.index),
        torch.from_numpy(features.weight),
        split.catalogue.vocab.num_rows,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = _body(config, num_event_types=len(split.event_types))
    return NextItems(
        items,
        body,
        num_pair_rows=config.num_pair_rows,
        row_dropout=training.row_dropout,
        sparse=training.num_sampled > 0,
    )


def build_sequence(
    config: SequenceConfig,
    tables: Params,
    *,
    num_event_types: int = 1,
    places: PlacePrior | None = None,
) -> Sequence:
    """The fused model, from the tables of both parts.

    Args:
        places: of the factorization.
        num_event_types: of the factorization; the Transformer has those that it was trained with.
    """
    weights = {n.removeprefix(BODY): t for n, t in tables.items() if n.startswith(BODY)}
    known = len(weights["encoder.event_type"])
    with torch.random.fork_rng(devices=[]):  # what is drawn here is replaced by what was pretrained
        body = _body(config, num_event_types=known).to(weights["encoder.event_type"].dtype)
    body.load_state_dict(weights)
    generator = torch.Generator().manual_seed(0)
    if config.own == "lora":
        body = with_lora(body, _LORA_LAYERS, rank=config.lora_rank, generator=generator)  # type: ignore[assignment]
    elif config.own == "film":
        body = with_film(body, _FILM_LAYERS)  # type: ignore[assignment]
    return Sequence(
        build_factorization(
            config.base, start_of(tables), num_event_types=num_event_types, places=places
        ),
        body,
        {name: table for name, table in tables.items() if name.startswith(PREFIX)},
        own_context=config.own == "context",
    )


def pretrained_tables(network: NextItems, gate: torch.Tensor) -> Params:
    """What of a pretrained network is kept: vectors of the items, weights of the body, the gate.

    Args:
        gate: starts of log_gate and of gate_by_size, `[2]`, in units of the base's scores.
    """
    with torch.no_grad():
        gate = gate - torch.stack([network.log_scale, torch.zeros(())])
        vectors = torch.cat([network.item_vectors(part) for part in _chunks(network)])
    weights = {f"{BODY}{n}": p.detach().clone() for n, p in network.body.named_parameters()}
    return {ITEM_VECTORS: vectors, GATE: gate.float(), **weights}


def required_pretrained(pretrained: Params | None) -> Params:
    """What was pretrained.

    Raises:
        ConfigError: nothing was.
    """
    if pretrained is None:
        raise ConfigError(
            "A sequence model needs a pretrained Transformer, and none was given.",
            remedy="Train with `raymeta train`, which pretrains first.",
        )
    return pretrained


def start_of(tables: Mapping[str, torch.Tensor]) -> Cooccurrence:
    """The co-occurrences among the tables of a factorization, or of what holds one."""
    return Cooccurrence(**{name: tables[name] for name in _START_TABLES})


def _body(config: SequenceConfig, *, num_event_types: int) -> SequenceBody:
    return SequenceBody(
        item_dim=config.item_dim,
        dim=config.dim,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        num_event_types=num_event_types,
        dropout=config.pretraining.dropout,
        recompute=config.pretraining.recompute,
    )


def _chunks(network: NextItems) -> tuple[torch.Tensor, ...]:
    rows = torch.arange(len(network.own.weight), device=network.own.weight.device)
    return torch.split(rows, _ITEMS_AT_ONCE)

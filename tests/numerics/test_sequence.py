"""A Transformer beside a factorization: what adapting and scoring come down to."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import sparse

from raymeta.adapters.film import with_film
from raymeta.adapters.lora import with_lora
from raymeta.algorithms import presets
from raymeta.algorithms.bound import bind
from raymeta.algorithms.gradient_based import GradientBased
from raymeta.models.cooccurrence import Cooccurrence, cooccurrence
from raymeta.models.factorization import Factorization
from raymeta.models.next_items import SequenceBody
from raymeta.models.ranking_losses import sampled_softmax_loss
from raymeta.models.sequence import GATE, ITEM_VECTORS, Sequence
from raymeta.types import Examples, Params, TaskBatch

ITEMS, WIDTH, RIDGE = 9, 4, 2.0
OWN = ("events", "context", "lora", "film")


def base() -> Factorization:
    log = (np.random.default_rng(5).random((12, ITEMS)) < 0.45).astype(np.float64)
    start = cooccurrence(sparse.csr_array(log), dim=ITEMS)
    exact = Cooccurrence(**{name: t.double() for name, t in start.tables().items()})
    return Factorization(exact, regularisation=RIDGE, ridge_by_size=-0.4, outer_loss="softmax")


def sequence(own: str = "events", log_gate: float = -0.5) -> Sequence:
    draw = torch.Generator().manual_seed(3)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = SequenceBody(item_dim=WIDTH, dim=8, num_layers=1, num_heads=2, num_event_types=1)
        for parameter in body.parameters():
            parameter.data += 0.3 * torch.randn_like(parameter)
    body = body.double()
    pretrained = {
        ITEM_VECTORS: torch.randn(ITEMS, WIDTH, generator=draw, dtype=torch.float64),
        GATE: torch.tensor([log_gate, 0.3], dtype=torch.float64),
    }
    if own == "lora":
        layers = ["encoder.blocks.*.attention.query"]
        body = with_lora(body, layers, rank=2, generator=draw)  # type: ignore[assignment]
    if own == "film":
        body = with_film(body, ["readout.leave"])  # type: ignore[assignment]
    return Sequence(base(), body, pretrained, own_context=own == "context")


def learner(own: str, **options: float) -> GradientBased:
    fast = ["context"] if own in ("events", "context") else ["context", own]
    return presets.maml(sequence(own, **options), inner_lr=0.3, num_inner_steps=2, fast=fast)


def start_of(algorithm: GradientBased) -> Params:
    draw = torch.Generator().manual_seed(4)
    params = {n: p.double() for n, p in algorithm.init(torch.Generator().manual_seed(1)).items()}
    return {
        n: p + 0.1 * torch.randn(p.shape, generator=draw, dtype=p.dtype) for n, p in params.items()
    }


def tasks() -> TaskBatch:
    """Supports of 3, 2 and 0 rows."""
    item = torch.tensor([[1, 4, 6, 0], [2, 3, 0, 0], [0, 0, 0, 0]])
    mask = torch.arange(4) < torch.tensor([3, 2, 0])[:, None]
    age = torch.tensor([[7.0, 7.0, 0.0, 0.0], [2.0, 0.0, 0.0, 0.0], [0.0] * 4]).double()
    support: Examples = {
        "item": item,
        "mask": mask,
        "age_days": age,
        "event_type": torch.zeros(3, 4, dtype=torch.int64),
        "count": torch.ones(3, 4, dtype=torch.float64),
    }
    later = {
        "item": torch.tensor([[5, 8], [0, 7], [3, 4]]),
        "mask": torch.tensor([[True, True], [True, False], [True, True]]),
    }
    return TaskBatch(support, later)


def only(examples: Examples, row: int) -> Examples:
    return {name: value[row : row + 1] for name, value in examples.items()}


@pytest.mark.parametrize("own", OWN)
def test_meta_gradient_is_that_of_finite_differences(own: str) -> None:
    algorithm, batch = learner(own), tasks()
    params = start_of(algorithm)
    found = algorithm.meta_gradient(params, batch).gradients
    draw, h = torch.Generator().manual_seed(9), 1e-5
    for name, value in params.items():
        step = torch.randn(value.shape, generator=draw, dtype=value.dtype)
        ahead, behind = (
            algorithm.query_losses({**params, name: value + sign * h * step}, batch).sum()
            for sign in (1.0, -1.0)
        )
        torch.testing.assert_close(
            (found[name] * step).sum(), (ahead - behind) / (2 * h), rtol=1e-5, atol=1e-7, msg=name
        )


@pytest.mark.parametrize("own", OWN)
def test_users_are_adapted_together_as_alone_and_by_a_record(own: str) -> None:
    algorithm, support = learner(own), tasks().support
    params = start_of(algorithm)
    together = algorithm.adapt(params, support)
    assert set(together) == {"context", "sequence.summary", "log_size"}
    bound = bind(algorithm, params)
    for row in range(3):
        for state in (algorithm.adapt(params, only(support, row)), bound.adapt(only(support, row))):
            for name, value in state.items():
                torch.testing.assert_close(value[0], together[name][row], rtol=1e-9, atol=1e-11)


def test_inner_steps_move_what_is_a_users_own_of_the_transformer() -> None:
    for own in ("context", "lora", "film"):
        algorithm = learner(own)
        params, support = start_of(algorithm), only(tasks().support, 0)
        moved = algorithm.adapt(params, support)["sequence.summary"]
        still = replace(algorithm, num_inner_steps=0).adapt(params, support)["sequence.summary"]
        assert (moved - still).abs().max() > 1e-4, own


def test_a_closed_gate_and_an_empty_support_are_the_factorization() -> None:
    support = tasks().support
    alone = presets.maml(base(), inner_lr=0.3, num_inner_steps=2, fast="context")
    params = alone.init(torch.Generator())
    expected = alone.score(params, alone.adapt(params, support))
    for log_gate, rows in ((-40.0, slice(0, 3)), (1.0, slice(2, 3))):
        fused = learner("events", log_gate=log_gate)
        start = fused.init(torch.Generator())
        scores = fused.score(start, fused.adapt(start, support))
        torch.testing.assert_close(scores[rows], expected[rows])


def test_order_in_time_changes_the_scores_and_candidates_are_rows_of_all() -> None:
    algorithm, support = learner("events"), only(tasks().support, 0)
    params = start_of(algorithm)
    state = algorithm.adapt(params, support)
    scores = algorithm.score(params, state)
    reordered = {**support, "age_days": torch.tensor([[0.0, 7.0, 7.0, 0.0]]).double()}
    assert not torch.allclose(scores, algorithm.score(params, algorithm.adapt(params, reordered)))
    some = torch.tensor([[3, 0]])
    torch.testing.assert_close(algorithm.score(params, state, some), scores[:, [3, 0]])


def test_the_body_runs_once_where_it_is_nobodys_own() -> None:
    algorithm, support = learner("context"), tasks().support
    model = algorithm.model
    assert isinstance(model, Sequence)
    params = start_of(algorithm)
    split = model.with_activations(params, support, algorithm.fast)
    assert split["sequence.predictions"].shape == (3, 5, WIDTH)
    assert not split["sequence.predictions"].requires_grad
    fast_body = learner("lora")
    assert isinstance(fast_body.model, Sequence)
    unsplit = fast_body.model.with_activations(start_of(fast_body), support, fast_body.fast)
    assert set(unsplit) == set(support)


def test_a_sample_of_everything_is_the_softmax_over_all() -> None:
    draw = torch.Generator().manual_seed(2)
    scores = torch.randn(50, generator=draw, dtype=torch.float64)
    log_share = torch.randn(50, generator=draw, dtype=torch.float64).log_softmax(0)
    later = torch.tensor([4, 11, 0])
    mask = torch.tensor([True, True, False])
    hidden = torch.zeros(50, dtype=torch.bool)
    hidden[[4, 11]] = True
    # each item once, so that Q = 1: every right item is told from all that are not right
    found = sampled_softmax_loss(
        scores[later], torch.zeros(3), mask, scores, torch.zeros(50), hidden
    )
    rest = scores.masked_fill(hidden, -torch.inf)
    expected = [-torch.cat([scores[[j]], rest]).log_softmax(0)[0] for j in (4, 11)]
    torch.testing.assert_close(found, torch.stack(expected).mean())
    # many draws by q with its correction come to the same
    num = 200_000
    drawn = torch.multinomial(log_share.exp(), num, replacement=True, generator=draw)
    log_q = log_share + np.log(num)
    sampled = sampled_softmax_loss(
        scores[later], torch.zeros(3), mask, scores[drawn], log_q[drawn], hidden[drawn]
    )
    torch.testing.assert_close(sampled, found, rtol=5e-3, atol=0.0)

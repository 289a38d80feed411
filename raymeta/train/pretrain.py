"""Pretraining of the Transformer of a `sequence` model, without an inner loop.

A task is a training user at a support size, as in the outer loop, and the loss is the outer loop's
or a softmax over the later items. Where the base's scores are added, each training user is left out
of the co-occurrences that they come from, so that what is learned is what they lack for a new user.
Validation users, never trained on, choose when to stop and the start of the gate; what they are
judged by is the model as it will be served.

Runs in a worker of Ray Train as the outer loop does: users are sharded, gradients summed over
workers, and a run resumes from its last checkpoint at the numbers of one that was not disturbed.
"""

import logging
import math
import time
from collections.abc import Callable

import torch
from torch import Tensor

from raymeta.algorithms.gradient_based import GradientBased
from raymeta.config.build import build_base
from raymeta.config.build_sequence import build_next_items, pretrained_tables
from raymeta.config.experiment import ExperimentConfig
from raymeta.config.models import SequenceConfig
from raymeta.data.task_split import TaskSplit
from raymeta.errors import AdaptationError
from raymeta.models.factorization import Factorization
from raymeta.models.next_items import NextItems
from raymeta.seeding import derive_seed, torch_generator
from raymeta.train.checkpoint import CheckpointStore, Position, read_checkpoint, write_checkpoint
from raymeta.train.loop import Worker
from raymeta.train.pretraining_loss import pretraining_loss
from raymeta.train.pretraining_optimizer import PretrainingOptimizer
from raymeta.train.pretraining_tasks import PretrainingTasks
from raymeta.train.pretraining_validation import GateValidation
from raymeta.types import Examples, Params

logger = logging.getLogger(__name__)

_CLOSED = -20.0  # log of a gate that lets nothing through
_GATE = "gate"


def pretrain(
    experiment: ExperimentConfig,
    split: TaskSplit,
    *,
    checkpoints: CheckpointStore,
    worker: Worker,
) -> Params:
    """What the model keeps of the best validation (`pretrained_tables`); the same on all workers.

    Without any step the gate is closed, and the model is its base.

    Raises:
        AdaptationError: the loss is not a number.
    """
    assert isinstance(experiment.model, SequenceConfig)
    config = experiment.model.pretraining
    device = _device(experiment)
    base = build_base(experiment, split)
    assert isinstance(base.model, Factorization)
    seed = derive_seed(experiment.seed, "pretraining")
    network = build_next_items(experiment.model, split, base.model.start, seed=seed).to(device)
    optimizer = PretrainingOptimizer(network, config, all_reduce=worker.all_reduce)
    position, best = Position(), {**_copied(network), _GATE: torch.tensor([_CLOSED, 0.0])}
    checkpoint = checkpoints.latest()
    if checkpoint is not None:
        position, params, best, state = read_checkpoint(checkpoint)
        network.load_state_dict(params)
        optimizer.load(state)
    tasks = PretrainingTasks(
        split.train.shard(worker.rank, worker.world_size),
        experiment.data,
        split=split,
        base=base_scores(base) if config.beside_base else None,
        users_per_batch=config.users_per_batch,
        seed=derive_seed(seed, "tasks", worker.rank, worker.world_size),
    )
    prior = base.model.tables()["item_prior"].to(device)
    validate = GateValidation(experiment, split, base, worker, device)
    losses: list[float] = []
    started_s = time.monotonic()
    while position.step < config.max_steps and position.stale < config.patience:
        draws = derive_seed(seed, "draws", worker.rank, position.step)
        network.train()
        batch = tasks.batch(position.step).to(device)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(draws)  # dropout has no generator of its own
            with torch.autocast(
                device.type, torch.bfloat16, enabled=config.precision == "bfloat16"
            ):
                loss = pretraining_loss(network, batch, prior, config)
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(optimizer.step(float(loss.detach())))
        if not math.isfinite(losses[-1]):
            raise AdaptationError(
                f"The pretraining loss is {losses[-1]} at step {position.step}.",
                remedy="Lower model.pretraining.learning_rate.",
            )
        position.step += 1
        if position.step % config.validate_every and position.step != config.max_steps:
            continue
        network.eval()
        choice = validate(network)
        if choice.score > position.best_score:
            position.best_score, position.best_step = choice.score, position.step
            position.curve = {str(size): value for size, value in choice.curve.items()}
            position.stale = 0
            best = {**_copied(network), _GATE: torch.tensor(choice.gate)}
        else:
            position.stale += 1
        _log(position, choice.score, losses, started_s)
        losses = []
        _save(checkpoints, position, network, best, optimizer)
    network.load_state_dict({name: value for name, value in best.items() if name != _GATE})
    return pretrained_tables(network.cpu().eval(), best[_GATE])


def base_scores(base: GradientBased) -> Callable[[Examples], Tensor]:
    """Supports of training users -> scores `[T, I]` of the base at its start, each left out."""
    model = base.model
    assert isinstance(model, Factorization)
    with torch.no_grad():
        prepared = base.prepare(base.init(torch_generator(0, "init")))

    def scores(support: Examples) -> Tensor:
        state = base.adapt_prepared(prepared, support)

        def one(adapted: Params, task: Examples) -> Tensor:
            params = {**prepared.slow, **adapted}
            return model.training_scores(params, prepared.shared, task)

        with torch.no_grad():
            found: Tensor = torch.func.vmap(one)(state, support)
        return found

    return scores


def _save(
    checkpoints: CheckpointStore,
    position: Position,
    network: NextItems,
    best: Params,
    optimizer: PretrainingOptimizer,
) -> None:
    checkpoints.save(
        position.step,
        lambda folder: write_checkpoint(
            folder, position, _copied(network), best, optimizer.state()
        ),
    )


def _copied(network: NextItems) -> Params:
    return {n: p.detach().cpu().clone() for n, p in network.named_parameters()}


def _device(experiment: ExperimentConfig) -> torch.device:
    wanted = experiment.training.use_gpu is not False and torch.cuda.is_available()
    return torch.device("cuda" if wanted else "cpu")


def _log(position: Position, score: float, losses: list[float], started_s: float) -> None:
    logger.info(
        "Pretraining: %d steps in %.0f s, loss %.4f, nDCG@10 %.4f of validation users, best %.4f",
        position.step,
        time.monotonic() - started_s,
        sum(losses) / len(losses),
        score,
        position.best_score,
    )

"""The works of the core benchmark: sizes, start values and tasks, in numpy alone.

Every contender, whatever its framework, gets the same arrays. A work is a network in two parts:
`slow`, trained by the outer loop only, and `fast`, of which each user gets a copy; parameters are
named by their part. What is asked of a contender is always the same: the gradient, in all
parameters, of the mean over users of the query loss after the inner steps, second order.

    sin1 sin5      MLP 1-40-40-1 on sinusoids, all fast, 1 or 5 inner steps (Finn et al. 2017)
    mel_head       8 categorical features of width 32, MLP 256-64-64-1 (after MeLU, Lee et al.
    mel_dense      2019); fast are the last layer, the dense layers, or the embeddings too
    mel_full
    seq_head       Transformer of 2 layers, width 64, over 50 of 10,000 items; fast are the last
    seq_lora       layer, or rank-4 adapters of query and value projections (LoRA, Hu et al. 2022)
"""

from dataclasses import dataclass

import numpy as np

Arrays = dict[str, np.ndarray]

SIN_WIDTH = 40
FEATURES, FEATURE_WIDTH, FEATURE_ROWS = 8, 32, 1250
MEL_WIDTH = 64
NUM_ITEMS, WIDTH, LENGTH, HEADS, LAYERS, FFN = 10_000, 64, 50, 2, 2, 256
SUPPORT_LENGTH, RANK = 40, 4


@dataclass(frozen=True)
class Work:
    """One row of the table.

    Attributes:
        kind: the family of networks: `sin`, `mel` or `seq`.
        fast: which part a user gets a copy of: `all`, `head`, `dense` or `lora`.
    """

    name: str
    kind: str
    fast: str
    users: int
    steps: int
    inner_lr: float


WORKS = {
    f"{work.name}_{work.users}" if work.kind == "mel" else work.name: work
    for work in (
        Work("sin1", "sin", "all", 25, 1, 0.01),
        Work("sin5", "sin", "all", 25, 5, 0.01),
        Work("mel_head", "mel", "head", 32, 5, 0.05),
        Work("mel_head", "mel", "head", 256, 5, 0.05),
        Work("mel_dense", "mel", "dense", 32, 5, 0.05),
        Work("mel_dense", "mel", "dense", 256, 5, 0.05),
        Work("mel_full", "mel", "all", 32, 5, 0.05),
        Work("seq_lora", "seq", "lora", 32, 5, 0.05),
        Work("seq_head", "seq", "head", 32, 5, 0.05),
    )
}


def start(work: Work, dtype: str) -> Arrays:
    """Start values by name, uniform within 1/sqrt(fan-in) as `torch.nn.Linear` draws them."""
    rng = np.random.default_rng(1)
    shapes = {"sin": _sin_shapes, "mel": _mel_shapes, "seq": _seq_shapes}[work.kind](work)
    values = {}
    for name, shape in shapes.items():
        if name.endswith("norm.weight"):
            value = np.ones(shape)
        elif name.endswith("norm.bias"):
            value = np.zeros(shape)
        else:
            # a bias of a [out, in] layer is drawn as its weight is; a table by its width
            weight = shapes.get(name.replace(".bias", ".weight"), shape)
            value = rng.uniform(-1, 1, shape) / np.sqrt(weight[-1])
        values[name] = value.astype(dtype)
    return values


def _linear(name: str, fan_in: int, fan_out: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (fan_out, fan_in), f"{name}.bias": (fan_out,)}


def _sin_shapes(_work: Work) -> dict[str, tuple[int, ...]]:
    return {
        **_linear("fast.hidden.0", 1, SIN_WIDTH),
        **_linear("fast.hidden.2", SIN_WIDTH, SIN_WIDTH),
        **_linear("fast.head.linear", SIN_WIDTH, 1),
    }


def _mel_shapes(work: Work) -> dict[str, tuple[int, ...]]:
    embedding = "fast" if work.fast == "all" else "slow"
    hidden = "slow" if work.fast == "head" else "fast"
    return {
        f"{embedding}.embedding.weight": (FEATURES * FEATURE_ROWS, FEATURE_WIDTH),
        **_linear(f"{hidden}.hidden.0", FEATURES * FEATURE_WIDTH, MEL_WIDTH),
        **_linear(f"{hidden}.hidden.2", MEL_WIDTH, MEL_WIDTH),
        **_linear("fast.head.linear", MEL_WIDTH, 1),
    }


def _seq_shapes(work: Work) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "slow.items.weight": (NUM_ITEMS, WIDTH),
        "slow.positions": (LENGTH, WIDTH),
    }
    for layer in range(LAYERS):
        block = f"slow.blocks.{layer}"
        for norm in ("attention_norm", "ffn_norm"):
            shapes |= {f"{block}.{norm}.weight": (WIDTH,), f"{block}.{norm}.bias": (WIDTH,)}
        for projection in ("query", "key", "value", "out"):
            shapes |= _linear(f"{block}.{projection}", WIDTH, WIDTH)
        shapes |= _linear(f"{block}.ffn_in", WIDTH, FFN) | _linear(f"{block}.ffn_out", FFN, WIDTH)
    shapes |= {"slow.norm.weight": (WIDTH,), "slow.norm.bias": (WIDTH,)}
    head = "fast.linear" if work.fast == "head" else "slow.head.linear"
    shapes |= _linear(head, WIDTH, WIDTH)
    if work.fast == "lora":
        for layer in range(LAYERS):
            for projection in ("query", "value"):
                shapes[f"fast.{layer}_{projection}_down"] = (RANK, WIDTH)
                shapes[f"fast.{layer}_{projection}_up"] = (WIDTH, RANK)
    return shapes


def tasks(work: Work, dtype: str, *, users: int | None = None) -> Arrays:
    """`support_x`, `support_y`, `query_x`, `query_y`, each with a leading axis of users.

    sin: x `[10, 1]`, y `[10]`. mel: x `[10, 8]` row numbers of one table that holds the features
    one after another, y `[10]`. seq: x `[L, 3]` the item at a place, the one that follows and one
    that does not; y `[L]` the weight of the place in the loss. Support is the first 40 places;
    query is all 50, of which the last 10 weigh.
    """
    users = work.users if users is None else users
    rng = np.random.default_rng(2)
    if work.kind == "seq":
        items = rng.integers(0, NUM_ITEMS, (users, LENGTH, 3))
        items[:, :-1, 1] = items[:, 1:, 0]
        weight = np.zeros((users, LENGTH))
        weight[:, SUPPORT_LENGTH:] = 1
        return {
            "support_x": items[:, :SUPPORT_LENGTH],
            "support_y": np.ones((users, SUPPORT_LENGTH), dtype),
            "query_x": items,
            "query_y": weight.astype(dtype),
        }
    rows = 10
    found: Arrays = {}
    amplitude, phase = rng.uniform(0.1, 5.0, (users, 1)), rng.uniform(0, np.pi, (users, 1))
    for part in ("support", "query"):
        if work.kind == "sin":
            x = rng.uniform(-5, 5, (users, rows, 1))
            found[f"{part}_x"] = x.astype(dtype)
            found[f"{part}_y"] = (amplitude * np.sin(x[..., 0] - phase)).astype(dtype)
        else:
            offsets = np.arange(FEATURES) * FEATURE_ROWS
            found[f"{part}_x"] = rng.integers(0, FEATURE_ROWS, (users, rows, FEATURES)) + offsets
            found[f"{part}_y"] = rng.integers(1, 6, (users, rows)).astype(dtype) - 3
    return found

"""The networks of the works as ordinary torch modules, as a user of any torch library has them.

Nothing here is made for one contender. Attention is spelled out, since the fused kernel has no
second derivative on CPU.
"""

import math
from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional
from works import (
    FEATURE_ROWS,
    FEATURE_WIDTH,
    FEATURES,
    FFN,
    HEADS,
    LAYERS,
    LENGTH,
    MEL_WIDTH,
    NUM_ITEMS,
    RANK,
    SIN_WIDTH,
    WIDTH,
    Arrays,
    Work,
)


class Net(nn.Sequential):
    """fast(slow(x))."""

    def __init__(self, slow: nn.Module, fast: nn.Module) -> None:
        super().__init__(OrderedDict(slow=slow, fast=fast))


class LoraNet(nn.Module):
    """slow(x, fast): the adapters sit inside the layers of the slow part."""

    def __init__(self, slow: nn.Module, fast: nn.Module) -> None:
        super().__init__()
        self.slow, self.fast = slow, fast

    def forward(self, x: Tensor) -> Tensor:
        return self.slow(x, self.fast)


class Mlp(nn.Module):
    """Embeddings (if any), two hidden layers, head (if any)."""

    def __init__(self, *, embed: bool, fan_in: int, width: int, head: bool) -> None:
        super().__init__()
        if embed:
            self.embedding = nn.Embedding(FEATURES * FEATURE_ROWS, FEATURE_WIDTH)
        self.hidden = nn.Sequential(
            nn.Linear(fan_in, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()
        )
        if head:
            self.head = Regression(width)

    def forward(self, x: Tensor) -> Tensor:
        if hasattr(self, "embedding"):
            x = self.embedding(x).flatten(-2)
        x = self.hidden(x)
        return self.head(x) if hasattr(self, "head") else x


class Embed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(FEATURES * FEATURE_ROWS, FEATURE_WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.embedding(x).flatten(-2)


class Regression(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 1)

    def forward(self, features: Tensor) -> Tensor:
        return self.linear(features).squeeze(-1)


class Head(nn.Module):
    """Regression under the name that the parameters have when only the head is fast."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.head = Regression(width)

    def forward(self, features: Tensor) -> Tensor:
        return self.head(features)


class Rank(nn.Module):
    """Scores of two items at each place: `[L, 3 * width]` -> `[L, 2]`."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, features: Tensor) -> Tensor:
        state, positive, negative = features.split(WIDTH, dim=-1)
        wanted = self.linear(state)
        return torch.stack([(wanted * positive).sum(-1), (wanted * negative).sum(-1)], dim=-1)


class Lora(nn.Module):
    """Rank-4 adapters of the query and value projections of each layer."""

    def __init__(self) -> None:
        super().__init__()
        for layer in range(LAYERS):
            for projection in ("query", "value"):
                for side, shape in (("down", (RANK, WIDTH)), ("up", (WIDTH, RANK))):
                    value = nn.Parameter(torch.zeros(shape))
                    self.register_parameter(f"{layer}_{projection}_{side}", value)

    def delta(self, layer: int, projection: str, x: Tensor) -> Tensor:
        down, up = (getattr(self, f"{layer}_{projection}_{side}") for side in ("down", "up"))
        return functional.linear(functional.linear(x, down), up)


class Block(nn.Module):
    """Pre-norm causal attention and feed-forward."""

    def __init__(self, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.attention_norm, self.ffn_norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.query, self.key = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.value, self.out = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.ffn_in, self.ffn_out = nn.Linear(WIDTH, FFN), nn.Linear(FFN, WIDTH)

    def forward(self, x: Tensor, lora: nn.Module | None) -> Tensor:
        h = self.attention_norm(x)
        query, value = self.query(h), self.value(h)
        if lora is not None:
            query = query + lora.delta(self.layer, "query", h)
            value = value + lora.delta(self.layer, "value", h)
        heads = (*x.shape[:-1], HEADS, WIDTH // HEADS)
        query, key, value = (
            part.reshape(heads).transpose(-3, -2) for part in (query, self.key(h), value)
        )
        scores = query @ key.transpose(-1, -2) / math.sqrt(WIDTH // HEADS)
        length = x.shape[-2]
        later = torch.ones(length, length, dtype=torch.bool).triu(1)
        mixed = scores.masked_fill(later, -1e9).softmax(-1) @ value
        x = x + self.out(mixed.transpose(-3, -2).reshape(x.shape))
        return x + self.ffn_out(functional.relu(self.ffn_in(self.ffn_norm(x))))


class Transformer(nn.Module):
    """`[L, 3]` item, next item, other item -> `[L, 3 * width]`, or `[L, 2]` with its own head."""

    def __init__(self, *, head: bool) -> None:
        super().__init__()
        self.items = nn.Embedding(NUM_ITEMS, WIDTH)
        self.positions = nn.Parameter(torch.zeros(LENGTH, WIDTH))
        self.blocks = nn.ModuleList(Block(layer) for layer in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = Rank() if head else None

    def forward(self, x: Tensor, lora: nn.Module | None = None) -> Tensor:
        vectors = self.items(x)
        state, positive, negative = vectors.unbind(-2)
        state = state + self.positions[: x.shape[-2]]
        for block in self.blocks:
            state = block(state, lora)
        features = torch.cat([self.norm(state), positive, negative], dim=-1)
        return features if self.head is None else self.head(features)


def network(work: Work, values: Arrays) -> Net | LoraNet:
    """The module of a work, with the given start values."""
    net: Net | LoraNet
    if work.kind == "sin":
        net = Net(nn.Identity(), Mlp(embed=False, fan_in=1, width=SIN_WIDTH, head=True))
    elif work.kind == "mel":
        width = {"fan_in": FEATURES * FEATURE_WIDTH, "width": MEL_WIDTH}
        net = {
            "head": lambda: Net(Mlp(embed=True, head=False, **width), Head(MEL_WIDTH)),
            "dense": lambda: Net(Embed(), Mlp(embed=False, head=True, **width)),
            "all": lambda: Net(nn.Identity(), Mlp(embed=True, head=True, **width)),
        }[work.fast]()
    elif work.fast == "head":
        net = Net(Transformer(head=False), Rank())
    else:
        net = LoraNet(Transformer(head=True), Lora())
    found = {name: torch.from_numpy(value) for name, value in values.items()}
    net.to(next(iter(found.values())).dtype).load_state_dict(found)
    return net


def loss(work: Work, out: Tensor, y: Tensor) -> Tensor:
    """Squared error; for sequences, logistic loss of the next item and of another, by weight."""
    if work.kind == "seq":
        return (
            y * (functional.softplus(-out[..., 0]) + functional.softplus(out[..., 1]))
        ).sum() / y.sum()
    return ((out - y) ** 2).mean()


class Bound(nn.Module):
    """A network as a module of its fast part alone; the slow part is held but not registered.

    For libraries that adapt all parameters of the module they are given.
    """

    def __init__(self, net: Net | LoraNet) -> None:
        super().__init__()
        self.fast = net.fast
        self._held = (net.slow,)  # in a tuple: a module that is not registered
        self._inside = isinstance(net, LoraNet)

    def features(self, x: Tensor) -> Tensor:
        """What does not change in the inner loop, for `forward`."""
        return x if self._inside else self._held[0](x)

    def forward(self, features: Tensor) -> Tensor:
        return self._held[0](features, self.fast) if self._inside else self.fast(features)

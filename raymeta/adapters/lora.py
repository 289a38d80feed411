"""LoRA: a low-rank change of a linear layer, small enough to be a user's own."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from raymeta.adapters.inject import replaced


class LoRALinear(nn.Module):
    """y = x W^T + b + alpha / rank * (x A) B.

    Hu et al.: LoRA: Low-Rank Adaptation of Large Language Models, ICLR 2022, section 4.1. B starts
    at 0, so that the layer starts as it was. The names `weight` and `bias` stay those of the layer.
    The product is taken through the rank, never as a user's own W.

    Args:
        layer: the layer to change.
        rank: r; a user's state is r * (in + out) numbers.
        alpha: scale of the change.
        generator: draws A.
    """

    def __init__(
        self, layer: nn.Linear, *, rank: int, alpha: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        draw = torch.randn(layer.in_features, rank, generator=generator).to(layer.weight)
        self.lora_a = nn.Parameter(draw / layer.in_features**0.5)
        self.lora_b = nn.Parameter(layer.weight.new_zeros(rank, layer.out_features))
        self._scale = alpha / rank

    def forward(self, x: Tensor) -> Tensor:
        whole = functional.linear(x, self.weight, self.bias)
        return torch.add(whole, (x @ self.lora_a) @ self.lora_b, alpha=self._scale)


def with_lora(
    module: nn.Module,
    layers: Sequence[str],
    *,
    rank: int,
    alpha: float | None = None,
    generator: torch.Generator,
) -> nn.Module:
    """A copy of `module` whose linear layers that match `layers` (globs) have LoRA factors.

    Args:
        alpha: `rank` if not given, so that the change is A B itself.
    """

    def wrap(layer: nn.Module) -> nn.Module:
        assert isinstance(layer, nn.Linear)
        return LoRALinear(layer, rank=rank, alpha=alpha or float(rank), generator=generator)

    return replaced(module, layers, (nn.Linear,), wrap)

"""Context parameters: an extra input of a layer that is a task's own."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from raymeta.adapters.inject import replaced


class ContextLinear(nn.Module):
    """y = x W^T + context C + b: the layer's input, extended by a vector that all rows share.

    Zintgraf et al.: Fast Context Adaptation via Meta-Learning (CAVIA), ICML 2019, eq. 3. The
    context starts at 0. The names `weight` and `bias` stay those of the layer.

    Args:
        layer: the layer to extend.
        size: width of the context, which is all that a user's state holds.
        generator: draws C, as a linear layer of this width would.
    """

    def __init__(self, layer: nn.Linear, *, size: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self.context = nn.Parameter(layer.weight.new_zeros(size))
        draw = torch.rand(size, layer.out_features, generator=generator).to(layer.weight)
        self.context_weight = nn.Parameter((2.0 * draw - 1.0) / (layer.in_features + size) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight, self.bias) + self.context @ self.context_weight


def with_context(
    module: nn.Module, layers: Sequence[str], *, size: int, generator: torch.Generator
) -> nn.Module:
    """A copy of `module` whose linear layers that match `layers` (globs) have a context input."""

    def wrap(layer: nn.Module) -> nn.Module:
        assert isinstance(layer, nn.Linear)
        return ContextLinear(layer, size=size, generator=generator)

    return replaced(module, layers, (nn.Linear,), wrap)

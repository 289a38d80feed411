"""FiLM: a scale and a shift of each feature behind a layer."""

from collections.abc import Sequence

from torch import Tensor, nn

from raymeta.adapters.inject import replaced


class FiLM(nn.Module):
    """y = (1 + film_scale) * layer(x) + film_shift, one number of each a feature or channel.

    Perez et al.: FiLM: Visual Reasoning with a General Conditioning Layer, AAAI 2018, eq. 2, with
    the scale measured from 1, so that zeros leave the layer as it was.

    Args:
        layer: a linear or convolutional layer; its parameters are then named `layer.*`.
    """

    def __init__(self, layer: nn.Linear | nn.Conv1d | nn.Conv2d) -> None:
        super().__init__()
        self.layer = layer
        if isinstance(layer, nn.Linear):
            shape: tuple[int, ...] = (layer.out_features,)
        else:
            shape = (layer.out_channels, *[1] * len(layer.kernel_size))
        self.film_scale = nn.Parameter(layer.weight.new_zeros(shape))
        self.film_shift = nn.Parameter(layer.weight.new_zeros(shape))

    def forward(self, x: Tensor) -> Tensor:
        return (1.0 + self.film_scale) * self.layer(x) + self.film_shift


def with_film(module: nn.Module, layers: Sequence[str]) -> nn.Module:
    """A copy of `module` with FiLM behind its layers that match `layers` (globs)."""

    def wrap(layer: nn.Module) -> nn.Module:
        assert isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d)
        return FiLM(layer)

    return replaced(module, layers, (nn.Linear, nn.Conv1d, nn.Conv2d), wrap)

"""raymeta, run from a record that torch.compile compiled; minutes of set-up."""

from collections.abc import Callable

from contenders import raymeta_traced
from torch import Tensor
from works import Arrays, Work


def prepare(work: Work, values: Arrays, batch: Arrays) -> Callable[[], dict[str, Tensor]]:
    return raymeta_traced.prepare(work, values, batch, compiled=True)

"""Few-shot image classes: tasks of some classes, named anew in every task.

Images come from a folder or zip of the Omniglot layout (`.../alphabet/character/*.png`), or from
scikit-learn's digits. A task draws `ways` classes, calls them 0 to ways - 1 in a random order, and
divides some of their images into support and query, so that only the support says which is which.
"""

import io
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor

from raymeta.data.worlds.base import rows
from raymeta.errors import ConfigError, DataError
from raymeta.types import TaskBatch


@dataclass(frozen=True)
class ImageClasses:
    """Images by class, in [0, 1] with ink at 1.

    Attributes:
        images: `[classes, images a class, 1, height, width]`.
        groups: the group of each class (its alphabet), by which classes are held out.
    """

    images: Tensor
    groups: tuple[str, ...]

    def of(self, groups: Sequence[str]) -> "ImageClasses":
        """The classes of these groups."""
        missing = set(groups) - set(self.groups)
        if missing:
            raise DataError(
                f"There are no classes of {sorted(missing)}, only of {sorted(set(self.groups))}.",
                remedy="Name groups that exist.",
            )
        keep = [i for i, group in enumerate(self.groups) if group in groups]
        return ImageClasses(self.images[keep], tuple(self.groups[i] for i in keep))

    def rotated(self) -> "ImageClasses":
        """Four times the classes: each turned by 0, 90, 180 and 270 degrees is one of its own.

        Santoro et al.: Meta-Learning with Memory-Augmented Neural Networks, ICML 2016, section 4.1.
        """
        turned = [torch.rot90(self.images, turns, (-2, -1)) for turns in range(4)]
        return ImageClasses(torch.cat(turned), self.groups * 4)


def read_omniglot(*paths: Path, size: int = 28) -> ImageClasses:
    """Every character of folders or zips in Omniglot's layout, as `size` x `size` images.

    Raises:
        DataError: there are no images, or characters have different numbers of them.
    """
    from PIL import Image

    by_class: dict[tuple[str, str], list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]] = {}
    for path in paths:
        for name, content in _files(path):
            alphabet, character = PurePosixPath(name).parts[-3:-1]
            picture = Image.open(io.BytesIO(content)).convert("L")
            small = picture.resize((size, size), Image.Resampling.BOX)
            ink = 1.0 - np.asarray(small, np.float32) / 255.0
            by_class.setdefault((alphabet, character), []).append(ink)
    counts = {len(images) for images in by_class.values()}
    if len(counts) != 1:
        raise DataError(
            f"{', '.join(map(str, paths))}: characters have {sorted(counts)} images each.",
            remedy="Give folders or zips of the form alphabet/character/*.png, each read once.",
        )
    stacked = np.stack([np.stack(by_class[key]) for key in sorted(by_class)])
    groups = tuple(alphabet for alphabet, _ in sorted(by_class))
    return ImageClasses(torch.from_numpy(stacked)[:, :, None], groups)


def read_digits() -> ImageClasses:
    """scikit-learn's 8 x 8 digits: ten classes of 174 images, each a group of its own name.

    Raises:
        ConfigError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError:
        raise ConfigError(
            "The digits come with scikit-learn, which is not installed.",
            remedy="pip install 'raymeta[images]'",
        ) from None
    digits = load_digits()
    per_class = min(np.bincount(digits.target))
    stacked = np.stack([digits.images[digits.target == d][:per_class] for d in range(10)])
    images = torch.from_numpy((stacked / 16.0).astype(np.float32))[:, :, None]
    return ImageClasses(images, tuple(str(d) for d in range(10)))


@dataclass(frozen=True)
class FewShotImages:
    """Tasks of `ways` classes with `shots` support images each.

    Args:
        classes: what tasks draw from.
        ways: classes a task.
        shots: support images a class.
        queries: query images a class.
    """

    classes: ImageClasses
    ways: int = 5
    shots: int = 1
    queries: int = 5

    def sample(self, num_tasks: int, generator: torch.Generator) -> TaskBatch:
        """Tasks with `x` `[T, S, 1, height, width]` and classes `y` `[T, S]`, S = ways * shots."""
        images = self.classes.images
        chosen = _some(self.ways, images.shape[0], (num_tasks,), generator)
        taken = _some(self.shots + self.queries, images.shape[1], (num_tasks, self.ways), generator)
        drawn = images[chosen[..., None], taken]
        labels = torch.arange(self.ways)[None, :, None].expand(taken.shape)

        def part(piece: slice) -> dict[str, Tensor]:
            return rows(drawn[:, :, piece].flatten(1, 2), labels[:, :, piece].flatten(1, 2))

        return TaskBatch(part(slice(None, self.shots)), part(slice(self.shots, None)))


def _some(number: int, out_of: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """`number` different indices below `out_of` for each place of `shape`, in random order."""
    return torch.rand((*shape, out_of), generator=generator).argsort(-1)[..., :number]


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the PNG files of a folder or a zip, by name."""
    if path.is_dir():
        for file in sorted(path.rglob("*.png")):
            yield file.as_posix(), file.read_bytes()
        return
    try:
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                if name.endswith(".png"):
                    yield name, archive.read(name)
    except (FileNotFoundError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path} is neither a folder nor a zip of images: {error}",
            remedy="Give the path of images_background_small1.zip, or of the unpacked folder.",
        ) from None

"""Task sources: what they promise of shapes and chance, and the answers that are known."""

import zipfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from raymeta.algorithms import presets
from raymeta.algorithms.outer import meta_train
from raymeta.data.worlds import images
from raymeta.data.worlds.base import TaskSource, batches
from raymeta.data.worlds.images import FewShotImages, ImageClasses, read_digits, read_omniglot
from raymeta.data.worlds.known import LinearGaussian, Null, TwoTribes
from raymeta.data.worlds.sinusoids import Sinusoids
from raymeta.data.worlds.tabular import Patients, Portfolios
from raymeta.errors import ConfigError, DataError
from raymeta.inner.losses import squared_error
from raymeta.models.module import ModuleModel
from raymeta.types import TaskBatch

CLASSES = ImageClasses(torch.rand(7, 6, 1, 4, 4), ("a", "a", "b", "b", "b", "c", "c"))
SOURCES = [
    Sinusoids(),
    TwoTribes(),
    TwoTribes(classify=True),
    Null(),
    LinearGaussian((1.0, 0.0)),
    Portfolios(),
    Patients(),
    FewShotImages(CLASSES, ways=3, shots=2, queries=3),
]


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("source", SOURCES, ids=lambda s: type(s).__name__)
def test_a_batch_has_a_row_of_tasks_and_depends_on_its_seed_and_place_only(
    source: TaskSource,
) -> None:
    stream = batches(source, tasks_per_batch=4, seed=1)
    first, second = next(stream), next(stream)
    again = next(batches(source, tasks_per_batch=4, seed=1))
    for part in ("support", "query"):
        one, other, repeated = (getattr(b, part) for b in (first, second, again))
        assert {n: t.shape[0] for n, t in one.items()} == {"x": 4, "y": 4, "mask": 4}
        assert one["mask"].all()
        assert one["x"].shape[:2] == one["y"].shape[:2] == one["mask"].shape
        assert torch.equal(one["x"], repeated["x"])
        assert not torch.equal(one["x"], other["x"])


def test_sinusoids_have_the_amplitudes_phases_and_frequencies_of_their_family() -> None:
    world = Sinusoids(support_size=200, query_size=1, min_frequency=0.8, max_frequency=1.2)
    support = world.sample(50, draw()).support
    assert support["x"].abs().max() <= 5.0
    peaks = support["y"].abs().amax((1, 2))
    assert 0.1 * 0.9 < float(peaks.min()) < 1.0
    assert 4.0 < float(peaks.max()) <= 5.0
    fixed = Sinusoids(support_size=200, query_size=1).sample(1, draw()).support
    x, y = fixed["x"][0], fixed["y"][0]
    waves = torch.cat([torch.sin(x), torch.cos(x)], 1)
    fitted = torch.linalg.lstsq(waves, y).solution
    torch.testing.assert_close(waves @ fitted, y, rtol=1e-4, atol=1e-4)


def test_the_posterior_mean_is_the_best_and_a_learner_comes_near_it() -> None:
    world = LinearGaussian((1.0, -2.0, 0.5), spread=1.0, noise=0.5, support_size=5)
    batch = world.sample(600, draw(3))
    bayes = world.error(world.posterior_mean(batch.support), batch.query).mean()
    for factor in (0.9, 1.1):
        off = world.posterior_mean(batch.support) * factor
        assert world.error(off, batch.query).mean() > bayes
    untold = {**batch.support, "mask": torch.zeros_like(batch.support["mask"])}
    prior = world.error(world.posterior_mean(untold), batch.query).mean()
    assert float(prior) == pytest.approx(world.unadapted_error, rel=0.1)

    error = trained_error(world, batch, width=3)
    assert float(bayes) < error < float(bayes) + 0.25 * (world.unadapted_error - float(bayes))


def test_a_patient_is_linear_in_its_features_and_a_portfolio_in_its_factors() -> None:
    patients = Patients(visits=5)
    batch = patients.in_features(patients.sample(600, draw(4)))
    law = patients.law
    bayes = law.error(law.posterior_mean(batch.support), batch.query).mean()
    features = torch.cat([batch.support["x"], batch.query["x"]], 1)
    spread = law.spread**2 * features.square().sum(-1).mean() + law.noise**2
    assert law.noise**2 < float(bayes) < 0.5 * float(spread)

    portfolios = Portfolios(days=8)
    days = portfolios.sample(600, draw(5))
    best = portfolios.law.error(portfolios.law.posterior_mean(days.support), days.query).mean()
    error = trained_error(portfolios, days, width=days.support["x"].shape[-1])
    assert float(best) < error < portfolios.law.unadapted_error


def trained_error(world: TaskSource, batch: TaskBatch, *, width: int) -> float:
    """Squared error of a linear model that was meta-trained on the world, adapted to new tasks."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ModuleModel(nn.Linear(width, 1), squared_error)
    learner = presets.meta_sgd(model, inner_lr=0.1, num_inner_steps=5)
    source = batches(world, tasks_per_batch=32, seed=2)
    params = meta_train(learner, source, num_steps=250, outer_lr=0.03)
    predictions = learner.score(params, learner.adapt(params, batch.support), batch.query["x"])
    return float((predictions - batch.query["y"]).square().mean())


def test_a_task_of_images_has_its_classes_by_new_names_and_no_image_twice() -> None:
    # the value of an image's pixels says which it is
    marked = torch.arange(7 * 6, dtype=torch.float32).reshape(7, 6, 1, 1, 1)
    source = FewShotImages(ImageClasses(marked, CLASSES.groups), ways=3, shots=2, queries=3)
    batch = source.sample(50, draw())
    both = [{n: part[n] for n in ("x", "y")} for part in (batch.support, batch.query)]
    x = torch.cat([part["x"].flatten(1) for part in both], 1)
    y = torch.cat([part["y"] for part in both], 1)
    for image, name in zip(x.long(), y, strict=True):
        assert len(image.unique()) == len(image)
        classes = [set((image[name == way] // 6).tolist()) for way in range(3)]
        assert all(len(c) == 1 for c in classes)
        assert len(set.union(*classes)) == 3
    names = {int(image[0] // 6) for image in x}
    assert len(names) == 7  # the first name is given to every class in turn


def test_turned_images_are_classes_of_their_own() -> None:
    turned = CLASSES.rotated()
    assert turned.images.shape[0] == 28
    assert turned.groups == CLASSES.groups * 4
    assert torch.equal(turned.images[7], CLASSES.images[0].rot90(1, (-2, -1)))
    assert set(turned.of(["b"]).groups) == {"b"}
    with pytest.raises(DataError, match=r"no classes of \['z'\]"):
        turned.of(["z"])


def picture(value: int) -> bytes:
    buffer = BytesIO()
    Image.fromarray(np.full((10, 10), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_folder_and_a_zip_of_characters_read_alike(tmp_path: Path) -> None:
    files = {
        f"set/{a}/character0{c}/{i}.png": picture(40 * i)
        for a in "ab"
        for c in "12"
        for i in (0, 1)
    }
    for name, content in files.items():
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(content)
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    folder = read_omniglot(tmp_path / "folder", size=5)
    zipped = read_omniglot(tmp_path / "set.zip", size=5)
    assert folder.groups == zipped.groups == ("a", "a", "b", "b")
    assert folder.images.shape == (4, 2, 1, 5, 5)
    assert torch.equal(folder.images, zipped.images)
    assert float(folder.images[0, 0].max()) == 1.0  # ink is 1
    (tmp_path / "folder/set/a/character01/1.png").unlink()
    with pytest.raises(DataError, match=r"characters have \[1, 2\] images each"):
        read_omniglot(tmp_path / "folder", size=5)
    with pytest.raises(DataError, match="neither a folder nor a zip"):
        read_omniglot(tmp_path / "missing.zip")


def test_digits_ask_for_their_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
    with pytest.raises(ConfigError, match=r"pip install 'raymeta\[images\]'"):
        read_digits()
    assert images.read_digits is read_digits


def test_classes_of_a_tribe_are_the_signs_of_its_values() -> None:
    values, classes = (TwoTribes(classify=c).sample(5, draw()) for c in (False, True))
    expected: Tensor = (values.query["y"][..., 0] > 0).long()
    assert torch.equal(classes.query["y"], expected)
    assert replace(TwoTribes(), classify=True) == TwoTribes(classify=True)

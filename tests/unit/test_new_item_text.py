"""A new item is also told by the sentence vectors of its text, where the experiment wants that."""

from pathlib import Path

import pyarrow as pa
import pytest

from raymeta.artifact import load_artifact
from raymeta.config.algorithms import CaviaConfig
from raymeta.config.experiment import ExperimentConfig, TrainingConfig
from raymeta.config.models import FactorizationConfig
from raymeta.train.run import train_in_process
from tests.helpers.shops import SHOP, describe_items, write_grouped_shop

pytest.importorskip("sentence_transformers", reason="the extra `text` is not installed")


@pytest.mark.slow
def test_words_that_no_item_has_say_what_a_new_item_is(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = write_grouped_shop(tmp_path / "data")
    describe_items(data, ["green tea", "candle holder", "alarm clock", "garden spade"])
    experiment = ExperimentConfig(
        name="text",
        data=SHOP.model_copy(update={"new_item_text": ("category",)}),
        model=FactorizationConfig(dim=8, regularisation=1.0),
        algorithm=CaviaConfig(),
        training=TrainingConfig(max_outer_steps=0),
    )
    train_in_process(experiment, data, out=tmp_path / "artifact")
    artifact = load_artifact(tmp_path / "artifact")
    encoded = artifact.encode_items(
        pa.table({"item_id": ["new"], "category": ["herbal tea bags"], "price": [3.0]})
    )
    vectors = artifact.algorithm.tables()["item_vectors"]
    spectrum = artifact.algorithm.tables()["spectrum"][: vectors.shape[1]]
    nearness = (vectors * spectrum.sqrt()) @ encoded.vectors[0]
    by_group = nearness.reshape(4, 10).mean(1)
    assert int(by_group.argmax()) == 0
    assert len(list((tmp_path / "cache" / "raymeta" / "texts").iterdir())) >= 1

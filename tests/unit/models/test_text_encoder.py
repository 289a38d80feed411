"""The sentence encoder: known similarities, the same vector alone and in company, the cache."""

from pathlib import Path

import pytest
import torch

from raymeta.errors import ConfigError
from raymeta.models.text_encoder import MINILM_SHA256, TextEncoder, encode_cached

pytest.importorskip("sentence_transformers", reason="the extra `text` is not installed")

# the import alone takes some seconds
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder()


@pytest.mark.parametrize(
    ("query", "closer", "farther"),
    [
        ("candle holder", "White hanging heart t-light holder", "Alarm clock bakelike red"),
        ("soda", "Soft drinks 12 pack cans", "Fluid milk white only"),
        ("washing powder", "Laundry detergents", "Bathroom towels"),
        ("A man is eating food.", "A man eats something.", "A cheetah runs behind its prey."),
    ],
)
def test_orders_texts_as_people_do(
    encoder: TextEncoder, query: str, closer: str, farther: str
) -> None:
    asked, near, far = encoder.encode([query, closer, farther])
    assert float(asked @ near) > float(asked @ far) + 0.1


def test_gives_the_cosine_that_the_model_is_known_for(encoder: TextEncoder) -> None:
    # the example of the model's card: all-MiniLM-L6-v2, mean pooling, normalised
    one, other = encoder.encode(["This is an example sentence", "Each sentence is converted"])
    assert encoder.sha256 == MINILM_SHA256
    assert one[:3].tolist() == pytest.approx([0.0677, 0.0635, 0.0487], abs=1e-3)
    assert float(one.norm()) == pytest.approx(1.0, abs=1e-5)
    assert float(other.norm()) == pytest.approx(1.0, abs=1e-5)


def test_a_text_has_one_vector_whatever_stands_beside_it(encoder: TextEncoder) -> None:
    long = "a very long description of a thing " * 100
    alone = encoder.encode(["red bowl"])[0]
    beside = encoder.encode([long, "red bowl", ""])
    torch.testing.assert_close(beside[1], alone, atol=2e-6, rtol=0)
    assert float(beside[2].abs().sum()) == 0.0
    torch.testing.assert_close(encoder.encode(["red bowl"])[0], alone, atol=0, rtol=0)


def test_keeps_vectors_by_their_texts(encoder: TextEncoder, tmp_path: Path) -> None:
    first = encode_cached(encoder, ["red bowl", "blue bowl"], tmp_path)
    (path,) = tmp_path.iterdir()
    made = path.stat().st_mtime_ns
    torch.testing.assert_close(encode_cached(encoder, ["red bowl", "blue bowl"], tmp_path), first)
    assert path.stat().st_mtime_ns == made
    encode_cached(encoder, ["blue bowl", "red bowl"], tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_without_safetensors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no model\.safetensors"):
        TextEncoder(tmp_path)

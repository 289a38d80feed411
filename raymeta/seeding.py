"""The one place where randomness starts: named generators derived from a run's seed.

Functions elsewhere take a generator; none reseeds the world.
"""

import hashlib

import numpy as np
import torch


def derive_seed(seed: int, *names: object) -> int:
    """A stable 63-bit seed for a named use, e.g. `derive_seed(7, "episodes", step)`."""
    text = "/".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def torch_generator(seed: int, *names: object) -> torch.Generator:
    """A CPU generator for a named use."""
    return torch.Generator().manual_seed(derive_seed(seed, *names))


def numpy_generator(seed: int, *names: object) -> np.random.Generator:
    """A numpy generator for a named use."""
    return np.random.default_rng(derive_seed(seed, *names))


def hash_fraction(salt: str, text: str) -> float:
    """A number in [0, 1) that depends on `salt` and `text` only: how users are split."""
    digest = hashlib.sha256(f"{salt}\x00{text}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2.0**64

"""Who is a training, validation, test or locked user: a salted hash of the id, never moving."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raymeta.config.data import SplitConfig
from raymeta.errors import DataError
from raymeta.seeding import hash_fraction

# Two salts, so that knowing a user's fold says nothing about being locked.
FOLD_SALT = "raymeta/fold"
LOCKED_SALT = "raymeta/locked"
VALIDATION_SALT = "raymeta/validation"


@dataclass(frozen=True)
class UserSplit:
    """Rows of the users in each part; the parts are disjoint."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]
    locked: NDArray[np.int64]


def split_users(
    user_ids: NDArray[np.str_],
    config: SplitConfig,
    *,
    arrives_late: NDArray[np.bool_] | None = None,
) -> UserSplit:
    """Divides users `[U]`.

    Args:
        user_ids: the shop's ids.
        config: folds and fractions.
        arrives_late: with `kind: time`, the users `[U]` whose first event is at or after the
            boundary; they are the test users.
    """
    locked = _hashes(LOCKED_SALT, user_ids) < config.locked_fraction
    if config.kind == "time":
        if arrives_late is None:
            raise ValueError("a time split needs the users that arrive late")
        test = arrives_late
    else:
        folds = (_hashes(FOLD_SALT, user_ids) * config.num_folds).astype(np.int64)
        test = folds == config.fold
    held_out = _hashes(f"{VALIDATION_SALT}/{config.fold}", user_ids) < config.validation_fraction
    split = UserSplit(
        train=np.flatnonzero(~locked & ~test & ~held_out),
        validation=np.flatnonzero(~locked & ~test & held_out),
        test=np.flatnonzero(~locked & test),
        locked=np.flatnonzero(locked),
    )
    for name in ("train", "validation", "test"):
        if len(getattr(split, name)) == 0:
            raise DataError(
                f"The split leaves no {name} users out of {len(user_ids)} that have enough events.",
                remedy="Lower data.min_units, change data.split, or prepare more data.",
            )
    return split


def _hashes(salt: str, user_ids: NDArray[np.str_]) -> NDArray[np.float64]:
    return np.array([hash_fraction(salt, str(user_id)) for user_id in user_ids], np.float64)

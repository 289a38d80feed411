"""Which variant answers a user who names none: by a salted hash, the same every time.

Shares are laid on the unit interval, the default variant last: a canary that grows takes users from
the default and from nobody else, and one that shrinks gives back the users whom it took last.
"""

import re
import uuid
from collections.abc import Mapping, Sequence

from raymeta.evaluation.online.attribution import Origin
from raymeta.seeding import hash_fraction

RECOMMEND = "recommend"
_UUID_DIGITS = 32
_HEXADECIMAL = re.compile("[1-9a-f][0-9a-f]{0,255}")


def assign(user_id: str, shares: Mapping[str, float], *, default: str, salt: str) -> str:
    """The variant of a user.

    Args:
        shares: variant -> weight, in any unit; empty: all to `default`.
        default: comes last; it has no share of its own unless `shares` gives it one.
        salt: another one deals all users anew.
    """
    if not shares:
        return default
    whole = sum(shares.values())
    place = hash_fraction(salt, user_id) * whole
    for name in sorted(shares, key=lambda name: (name == default, name)):
        place -= shares[name]
        if place < 0:
            return name
    return default


def new_list_id(variant: str, scenario: str = RECOMMEND) -> str:
    """An answer's id: unique, and says which variant answered and what for, so that no log is
    needed for it. A scenario is written where it is not to recommend."""
    what_for = "" if scenario == RECOMMEND else f":{scenario}"
    return f"{uuid.uuid4().hex}.{variant}{what_for}"


def new_interleaved_id(variants: tuple[str, str], from_first: Sequence[bool]) -> str:
    """The id of a list of two variants that says for each place who picked it.

    In hexadecimal, a binary digit a place after a leading 1: 1 is a pick of the first.
    """
    picks = int("1" + "".join("1" if first else "0" for first in from_first), 2)
    return new_list_id(f"{variants[0]}+{variants[1]}+{picks:x}")


def origin_of(list_id: str) -> Origin | None:
    """Who made a list, as its id says; None where it is not one of ours."""
    digits, _, made_by = list_id.partition(".")
    if len(digits) != _UUID_DIGITS or not made_by:
        return None
    made_by, _, scenario = made_by.partition(":")
    match made_by.split("+"):
        case [variant] if variant:
            return Origin((variant,), scenario=scenario or RECOMMEND)
        case [first, second, picks] if _HEXADECIMAL.fullmatch(picks):
            places = f"{int(picks, 16):b}"[1:]
            return Origin((first, second), tuple(place == "1" for place in places))
    return None

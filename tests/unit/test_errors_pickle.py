"""Every error crosses a process boundary whole, and has an exit code."""

import pickle

import pytest

from raymeta import errors
from raymeta.errors import RaymetaError


def kinds(kind: type[RaymetaError] = RaymetaError) -> list[type[RaymetaError]]:
    return [kind, *(k for sub in kind.__subclasses__() for k in kinds(sub))]


def test_the_tree_is_the_one_in_the_module() -> None:
    own = {k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, RaymetaError)}
    assert own == {k for k in kinds() if k.__module__ == "raymeta.errors"}
    assert len(own) >= 11


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
def test_survives_pickling(kind: type[RaymetaError]) -> None:
    error = kind("a value was 3.", remedy="Write 2.")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert (copy.message, copy.remedy) == ("a value was 3.", "Write 2.")
    assert str(copy) == "a value was 3. Write 2."
    assert copy.exit_code in (1, 2)

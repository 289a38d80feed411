"""The public names: all there, sorted, cheap to import."""

import subprocess
import sys

import pytest

import raymeta
import raymeta.client


def test_all_is_sorted_and_complete() -> None:
    assert list(raymeta.__all__) == sorted(raymeta._MODULE_OF)


@pytest.mark.parametrize("name", raymeta.__all__)
def test_every_name_loads_and_is_what_its_module_has(name: str) -> None:
    value = getattr(raymeta, name)
    module = sys.modules[raymeta._MODULE_OF[name]]
    assert value is getattr(module, name)
    assert name in dir(raymeta)


def test_the_client_package_lists_what_it_gives() -> None:
    assert raymeta.client.__all__ == sorted(raymeta.client.__all__)
    for name in raymeta.client.__all__:
        assert getattr(raymeta.client, name).__module__.startswith("raymeta.")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        raymeta.nothing  # noqa: B018


def test_importing_the_package_and_the_command_loads_nothing_heavy() -> None:
    code = (
        "import sys, raymeta, raymeta.cli.main; "
        "heavy = ('torch', 'ray', 'fastapi', 'pandas', 'matplotlib'); "
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

"""The commands of the READMEs: verbs, options, files and targets that there are.

That nobody who types one meets "no such option"; tests/integration/test_readme_executed runs them.
"""

import re
import shlex
import subprocess
from typing import Any

import pytest
import typer
from typer.exceptions import TyperException

from raymeta.cli.main import VERBS, build_app
from tests.helpers.readmes import ROOT, commands

OTHERS = {  # of other programs
    *("kubectl", "docker", "serve", "pip", "RAY_SERVE_ENABLE_HA_PROXY", "git"),
}


# what asks the service, over several lines, is run by test_api_guide
COMMANDS = sorted({line for _, line in commands() if not line.startswith(("curl ", "URL="))})


def require_files(words: list[str]) -> None:
    for word in words:
        if re.fullmatch(r"(tune_configs|tests|serve_apps|cluster)/\S+", word):
            assert (ROOT / word).exists(), word


def require_parsed(words: list[str]) -> None:
    """Parses as the command line does, down to the verb's own options; runs nothing."""
    called = next(word for word in words if word in VERBS)
    command: Any = typer.main.get_command(build_app(called))
    context: Any = None
    rest, name = words, "raymeta"
    while hasattr(command, "resolve_command"):
        context = command.make_context(name, list(rest), parent=context)
        name, command, rest = command.resolve_command(
            context, [*context._protected_args, *context.args]
        )
    command.make_context(name, list(rest), parent=context)


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 20
    assert sum(command.startswith("raymeta ") for command in COMMANDS) > 10


@pytest.mark.parametrize("words", ["serve a --porty 1", "tune", "data descripe a", "train a b"])
def test_a_command_that_there_is_not_is_found(words: str) -> None:
    with pytest.raises(TyperException):
        require_parsed(words.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_one_that_there_is(command: str) -> None:
    words = shlex.split(command)
    require_files(words)
    if words[0] == "raymeta":
        require_parsed(words[1:])
    elif words[0] == "make":
        done = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    elif words[0] == "python":
        named = words[words.index("-m") + 1] if "-m" in words else words[1]
        if named.startswith("tests."):
            assert (ROOT / (named.replace(".", "/") + ".py")).exists(), named
        else:
            assert named in ("pytest", "venv") or (ROOT / named).exists(), named
    elif words[0].startswith(("cluster/", ".ci/")):
        assert (ROOT / words[0]).is_file()
    else:
        assert re.split("[=]", words[0])[0] in OTHERS, f"no test knows {command!r}"

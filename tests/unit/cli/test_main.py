"""The frame of the command: verbs found, errors shown, exit codes."""

import importlib
import json
import logging
from pathlib import Path

import pytest
import typer

from raymeta.cli import main as cli
from raymeta.cli import output
from raymeta.errors import ConfigError, RaymetaError, ResourceError
from raymeta.observability import logs


@pytest.fixture(autouse=True)
def _logging_as_before() -> None:
    yield
    logging.getLogger("raymeta").handlers.clear()
    logging.getLogger("raymeta").propagate = True


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch):
    """Registers a function as `raymeta probe`."""

    def register(function) -> None:
        monkeypatch.setattr(cli, "_probe", function, raising=False)
        table = {**cli.VERBS, "probe": cli.Verb("raymeta.cli.main", "_probe", "A probe.")}
        monkeypatch.setattr(cli, "VERBS", table)

    return register


@pytest.mark.parametrize("name", cli.VERBS)
def test_every_verb_of_the_table_exists_and_its_help_has_an_example(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    target = cli.VERBS[name]
    found = getattr(importlib.import_module(target.module), target.attribute)
    inner = found.registered_commands if isinstance(found, typer.Typer) else []
    for words in [[name], *([name, command.callback.__name__] for command in inner)]:
        assert cli.run([*words, "--help"]) == 0
        text = capsys.readouterr().out
        assert f"Usage: raymeta {' '.join(words)}" in text
        if len(words) == 2 or not inner:
            assert "Example" in text, f"the help of {words} has no example"


def test_help_lists_every_verb_without_importing_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--help"]) == 0
    out = capsys.readouterr().out
    for name, target in cli.VERBS.items():
        assert name in out
        assert target.summary in out


def test_a_mistyped_verb_is_refused_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["tran"]) == 2
    assert "Did you mean 'train'?" in capsys.readouterr().err


def test_a_mistyped_option_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["config", "check", "x.yaml", "--jsn"]) == 2
    assert "No such option: --jsn" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("rate is -1.", remedy="Write a positive rate."), 2),
        (ResourceError("4 CPU needed, the cluster has 2.", remedy="Ask for less."), 2),
        (RaymetaError("2 of 3 trials failed.", remedy="Run it again."), 1),
    ],
)
def test_errors_become_one_message_and_an_exit_code(
    verb, capsys: pytest.CaptureFixture[str], error: RaymetaError, code: int
) -> None:
    def probe() -> None:
        raise error

    verb(probe)
    assert cli.run(["probe"]) == code
    shown = capsys.readouterr()
    assert shown.err.splitlines() == [f"Error: {error.message}", error.remedy]
    assert shown.out == ""


def test_debug_says_where_an_error_came_from(verb, capsys: pytest.CaptureFixture[str]) -> None:
    def probe() -> None:
        raise ConfigError("rate is -1.")

    verb(probe)
    assert cli.run(["--log-level", "debug", "--log-format", "json", "probe"]) == 2
    first = json.loads(capsys.readouterr().err.splitlines()[0])
    assert first["level"] == "debug"
    assert "in probe" in first["traceback"]


def test_a_file_that_the_system_refuses(
    verb, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def probe() -> None:
        (tmp_path / "absent").read_text()

    verb(probe)
    assert cli.run(["probe"]) == 1
    assert f"Error: {tmp_path}/absent: No such file or directory." in capsys.readouterr().err


def test_ctrl_c_says_so_and_ends_with_130(verb, capsys: pytest.CaptureFixture[str]) -> None:
    def probe() -> None:
        raise KeyboardInterrupt

    verb(probe)
    assert cli.run(["probe"]) == 130
    assert capsys.readouterr().err == "Interrupted.\n"


def test_a_verb_can_end_with_a_code_of_its_own(verb) -> None:
    def probe() -> None:
        raise typer.Exit(7)

    verb(probe)
    assert cli.run(["probe"]) == 7


def test_a_bug_is_not_hidden(verb) -> None:
    def probe() -> None:
        raise ZeroDivisionError

    verb(probe)
    with pytest.raises(ZeroDivisionError):
        cli.run(["probe"])


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out.strip()


def test_json_is_one_line_of_plain_values(capsys: pytest.CaptureFixture[str]) -> None:
    import numpy as np

    result = {
        "path": Path("a/b"),
        "score": np.float32(0.5),
        "none": float("nan"),
        "sizes": (1, np.int64(2)),
        "name": "café",
    }
    output.emit(result, as_json=True, render=str)
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out) == {
        "path": "a/b",
        "score": 0.5,
        "none": None,
        "sizes": [1, 2],
        "name": "café",
    }


def test_text_is_printed_as_written(capsys: pytest.CaptureFixture[str]) -> None:
    command = "curl -s http://127.0.0.1:8000 -d '{\"a\": [1]}' " + "x" * 300
    output.emit({}, as_json=False, render=lambda _: command)
    assert capsys.readouterr().out == command + "\n"


def test_log_lines_carry_facts(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(logs.Level.INFO, logs.Format.JSON)
    logs.logger("raymeta.jobs").info("job submitted", extra=logs.facts(job_id="a1"))
    logs.logger("raymeta.jobs").debug("not shown")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    line = json.loads(lines[0])
    assert (line["message"], line["job_id"], line["logger"]) == (
        "job submitted",
        "a1",
        "raymeta.jobs",
    )
    logs.configure(logs.Level.INFO)
    logs.logger("raymeta.jobs").info("job submitted", extra=logs.facts(job_id="a1"))
    text = capsys.readouterr().err
    assert text.rstrip().endswith("INFO    job submitted job_id=a1")
    assert text.count("\n") == 1, "configuring again must not print twice"

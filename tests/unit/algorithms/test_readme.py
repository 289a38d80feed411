"""The example of the folder's README runs as it stands, and does what it says."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[3] / "raymeta" / "algorithms" / "README.md"


def test_the_example_runs_and_learns(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)
    printed = capsys.readouterr().out
    error = float(printed.rpartition(" ")[2])
    assert error < 2.5  # untrained and unadapted it is above 4
    lines = [line for line in blocks[0].splitlines() if line.strip()]
    assert len(lines) <= 20

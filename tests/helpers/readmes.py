"""The commands that the READMEs tell a reader to type."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
READMES = [
    ROOT / name
    for name in (
        "README.md",
        "CONTRIBUTING.md",
        "serve_apps/README.md",
        "cluster/README.md",
        "tune_configs/README.md",
    )
]


def commands() -> Iterator[tuple[str, str]]:
    """(README, command) of each line of a shell block."""
    for readme in READMES:
        text = readme.read_text(encoding="utf-8")
        blocks = re.findall(r"^```sh\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
        indented = re.findall(
            r"^    \$? ?((?:raymeta|make|python|cluster/)\S* .*)$", text, flags=re.MULTILINE
        )
        joined = re.sub(r"\\\n\s*", " ", "\n".join([*blocks, *indented]))
        for line in joined.splitlines():
            for part in re.split(r"\s&&\s", re.sub(r"\s+#.*$|\s{2,}\S.*$", "", line)):
                if re.match(r"[\w./]+", part):
                    yield readme.relative_to(ROOT).as_posix(), part.strip()

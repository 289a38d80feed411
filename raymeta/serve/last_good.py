"""Which models answered last: noted where a replica that restarts finds it.

While an artifact that cannot be loaded is declared, running replicas keep their models; one that is
started meanwhile has none, and takes those of the note. Without it, a bad artifact would grow into
an outage, replica by replica.
"""

import json
import logging
import os
import tempfile
from pathlib import Path

from raymeta.config.serving import ModelTable, ServingConfig
from raymeta.errors import ConfigError

logger = logging.getLogger(__name__)


def place_of(config: ServingConfig) -> Path | None:
    """Where the note of a service is: as the settings say, or beside its SQLite file."""
    if config.last_good_file is not None:
        return Path(config.last_good_file).expanduser()
    if config.store.kind == "sqlite":
        return Path(config.store.path).expanduser().with_suffix(".models.json")
    return None


def note(table: ModelTable, path: Path | None) -> None:
    """Notes the models that were loaded; a note that cannot be written is logged, no more."""
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(table.model_dump_json())
        os.replace(temporary, path)
    except OSError as error:
        logger.warning("The models that answer could not be noted in %s: %s", path, error)


def noted(path: Path | None) -> ModelTable | None:
    """The models of the note; None where there is none that can be read."""
    if path is None:
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return ModelTable.parse(values, source=str(path))
    except (OSError, ValueError, ConfigError):
        return None

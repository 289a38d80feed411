"""Log lines on stderr, as text or as JSON, with the facts of an event as fields.

    log = logs.logger(__name__)
    log.info("job submitted", extra=logs.facts(job_id=job_id))

Only the command line and a service's replicas call `configure`; a library that logs must leave the
choice to its caller.
"""

import datetime
import enum
import json
import logging
import sys
from typing import Any

_FACTS = "raymeta_facts"


class Level(enum.StrEnum):
    """The least severe line that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Format(enum.StrEnum):
    """How a line is written."""

    TEXT = "text"
    JSON = "json"


def configure(level: Level, form: Format = Format.TEXT) -> None:
    """Sends the log lines of `raymeta` to stderr; calling it again replaces what was set."""
    remove()
    root = logging.getLogger("raymeta")
    handler = _StderrHandler()
    handler.setFormatter(_JsonFormatter() if form is Format.JSON else _TextFormatter())
    root.addHandler(handler)
    root.setLevel(level.upper())
    root.propagate = False


def remove() -> None:
    """Takes back what `configure` did."""
    root = logging.getLogger("raymeta")
    for handler in list(root.handlers):
        if isinstance(handler, _StderrHandler):
            root.removeHandler(handler)
    root.setLevel(logging.NOTSET)
    root.propagate = True


def logger(name: str) -> logging.Logger:
    """The logger of a module of raymeta, by `__name__`."""
    return logging.getLogger(name)


def facts(**values: Any) -> dict[str, Any]:
    """The `extra` of a log call: fields of a JSON line, `key=value` in a text line."""
    return {_FACTS: values}


class _StderrHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Looks up `sys.stderr` at each line, so that a redirected stream is honoured."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        return sys.stderr


class _TextFormatter(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the base's name
        values: dict[str, Any] = getattr(record, _FACTS, {})
        tail = "".join(f" {key}={value}" for key, value in values.items())
        return super().formatMessage(record) + tail


class _JsonFormatter(logging.Formatter):
    """One object a line: `time` (ISO-8601, UTC), `level`, `logger`, `message`, then the facts."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.datetime.fromtimestamp(record.created, tz=datetime.UTC)
        line: dict[str, Any] = {
            "time": time.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, _FACTS, {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)

"""Who may call: API keys with scopes and tenants, compared in constant time and never logged.

Keys are kept as their SHA-256: the file tells nobody a key. Leaves where a request carries one, and
which route needs which scope, to `routes`.
"""

import hashlib
import hmac
import ipaddress
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from raymeta.config.base import StrictModel, load_settings
from raymeta.config.serving import Name
from raymeta.errors import ConfigError, ForbiddenError, UnauthenticatedError

KEY_BYTES = 32


class Scope(StrEnum):
    """What a key may do; none includes another."""

    READ = "read"
    """Ask for recommendations, and read back what is known."""

    WRITE = "write"
    """Send events, features and items."""

    ADMIN = "admin"
    """Export the log, and erase users."""


class KeyConfig(StrictModel):
    """One API key."""

    name: Name
    """Who holds it; it stands in logs and in refusals."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Of the key, in hexadecimal: `raymeta serve --new-key NAME` prints both."""

    scopes: Annotated[tuple[Scope, ...], Field(min_length=1)]
    """What it may do."""

    tenants: tuple[Name, ...] | None = None
    """The tenants it opens; not given: all."""


class KeysFile(StrictModel):
    """The file of a service's keys."""

    keys: Annotated[tuple[KeyConfig, ...], Field(min_length=1)]
    """The keys; several of one holder while one replaces the other."""

    @model_validator(mode="after")
    def _differ(self) -> "KeysFile":
        if len({key.sha256 for key in self.keys}) < len(self.keys):
            raise ValueError("one sha256 stands there twice")
        return self


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request.

    Attributes:
        name: of the key; `anonymous` where the service has none.
        scopes: what it may do.
        tenants: which it may see; None for all.
    """

    name: str
    scopes: frozenset[Scope]
    tenants: frozenset[str] | None = None

    def require(self, scope: Scope) -> None:
        """Refuses a caller without the scope.

        Raises:
            ForbiddenError: naming the scope.
        """
        if scope not in self.scopes:
            raise ForbiddenError(
                f"The key {self.name!r} has not the scope {scope.value!r} that this needs.",
                remedy="Use a key that has it.",
            )

    def tenant(self, name: str) -> str:
        """The tenant's name, where the caller may see it; the only way to one.

        Raises:
            ForbiddenError: whether the tenant exists or not.
        """
        if self.tenants is not None and name not in self.tenants:
            raise ForbiddenError(
                f"The key {self.name!r} does not open the tenant {name!r}.",
                remedy="Use a key of that tenant.",
            )
        return name


ANYBODY = Caller("anonymous", frozenset(Scope))


class Keys:
    """The keys of a service; without any, everybody may do everything.

    Args:
        keys: as the file has them.
    """

    def __init__(self, keys: Sequence[KeyConfig] = ()) -> None:
        self._callers = [
            (
                bytes.fromhex(key.sha256),
                Caller(
                    key.name,
                    frozenset(key.scopes),
                    None if key.tenants is None else frozenset(key.tenants),
                ),
            )
            for key in keys
        ]

    @classmethod
    def read(cls, path: str | Path) -> "Keys":
        """The keys of a file.

        Raises:
            ConfigError: the file is missing or wrong.
        """
        return cls(load_settings(KeysFile, Path(path).expanduser()).keys)

    def __bool__(self) -> bool:
        return bool(self._callers)

    def caller(self, key: str | None) -> Caller:
        """Whose key this is.

        Raises:
            UnauthenticatedError: nobody's.
        """
        if not self._callers:
            return ANYBODY
        if not key:
            raise UnauthenticatedError(
                "The request has no API key.",
                remedy="Send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`.",
            )
        given = hashlib.sha256(key.encode()).digest()
        found = None
        for digest, caller in self._callers:  # all of them: the time says nothing of the place
            if hmac.compare_digest(given, digest):
                found = caller
        if found is None:
            raise UnauthenticatedError(
                "The API key is not known.", remedy="Check it; it may have been replaced."
            )
        return found


def new_key() -> tuple[str, str]:
    """A random key, and its SHA-256 for the file."""
    key = secrets.token_urlsafe(KEY_BYTES)
    return key, hashlib.sha256(key.encode()).hexdigest()


def require_keys_on(host: str, *, has_keys: bool) -> None:
    """Refuses to listen without keys where others reach the service.

    Raises:
        ConfigError: the address is not this machine's own.
    """
    if not has_keys and not is_loopback(host):
        raise ConfigError(
            f"The service would listen on {host} without API keys: whoever reaches it could read "
            "and erase users.",
            remedy="Give access.keys_file (or --keys), or listen on 127.0.0.1.",
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address; a name other than localhost may be anything."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"

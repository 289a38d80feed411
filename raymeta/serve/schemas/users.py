"""What is known of a user, and its end."""

from typing import Any

from raymeta.serve.schemas.base import Features, Message, examples


class UserFeatures(Message):
    """What the shop says of a user."""

    model_config = examples({"features": {"country": "DE", "age": 34}})

    features: Features
    """By feature name; with PATCH, a null removes one."""


class UserResponse(Message):
    """A user as the service knows it."""

    user_id: str
    """The user."""

    tenant: str
    """The shop."""

    features: dict[str, Any]
    """What the shop said of the user."""

    state_version: int
    """Grows with every change that recommendations depend on."""

    n_events: int
    """Events accepted since the user became known, or was erased."""

    generation: int
    """How often the user was erased."""


class UserStateResponse(Message):
    """What the service makes of a user."""

    user_id: str
    """The user."""

    tenant: str
    """The shop."""

    state_version: int
    """Grows with every request that adds an event."""

    n_events: int
    """Events accepted since the user became known, or was erased."""

    n_retained: int
    """Of those, how many are kept."""

    n_support: int
    """Of those, how many the model adapts to: known items, types that count, the last so many."""

    n_seen_items: int
    """Items that `exclude_seen` leaves out."""

    last_event_ms: int | None
    """UTC milliseconds of the latest event."""

    state_bytes: int
    """What the adapted state takes in a replica's memory."""

    model_version: str
    """The artifact that would answer."""

    variant: str
    """The variant that would answer."""


class UserExport(Message):
    """Everything that is stored of a user."""

    user_id: str
    """The user."""

    tenant: str
    """The shop."""

    features: dict[str, Any]
    """What the shop said of the user."""

    events: list[dict[str, Any]]
    """The retained events, oldest first."""

    seen_items: list[str]
    """Items with an event other than an impression, retained or not."""

    rankings: list[dict[str, Any]]
    """Lists drawn for the user by chance, with their propensities."""

    generation: int
    """How often the user was erased."""


class ErasureReceipt(Message):
    """Says that a user was erased, and what remains."""

    model_config = examples(
        {
            "receipt_id": "9f2b6f0e5c1d4a7b",
            "user_id": "ann",
            "tenant": "default",
            "erased_at_ms": 1767225600000,
            "generation": 1,
            "events_erased": 212,
            "remains": "...",
        }
    )

    receipt_id: str
    """Of this erasure."""

    user_id: str
    """The user."""

    tenant: str
    """The shop."""

    erased_at_ms: int
    """UTC milliseconds; events of then or before cannot come back."""

    generation: int
    """How often the user was erased, this time included."""

    events_erased: int
    """Events that were accepted of the user and are gone."""

    remains: str
    """What is kept, where, and for how long."""

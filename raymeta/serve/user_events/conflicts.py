"""What every store says where an id was used before with another content."""

from raymeta.errors import ConflictError


def event_conflict(event_id: str) -> ConflictError:
    """An event id that stands for another event already."""
    return ConflictError(
        f"The event_id {event_id!r} was used before for another event; nothing of this request "
        "was kept.",
        remedy="Send the same event again to repeat it, or a new event_id for another.",
    )


def key_conflict(key: str) -> ConflictError:
    """An idempotency key that stands for another request already."""
    return ConflictError(
        f"The Idempotency-Key {key!r} was used before for another request.",
        remedy="Send the same request again to repeat it, or a new key for another.",
    )

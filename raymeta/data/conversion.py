"""Arrow columns of any type to text, numbers and UTC milliseconds, with what could not be read.

Vectorised, and total: a value that cannot be converted is reported in a mask, never raised.
"""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"

_NO_NUMBER = r"^(?i:na|n/a|nan|null|none)$"
"""What exports write where there is no number."""

_EPOCH = r"^-?\d{9,}(\.\d+)?$"
"""Nine digits or more are seconds or milliseconds; eight may be a date such as 20170131."""

_MAX_EPOCH_S = 1e11
"""Below it a number counts seconds (until the year 5138), above it milliseconds (from 1973)."""


def to_text(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Text without surrounding blanks; null where there is nothing.

    Whole floats become integers (`17850.0` is what a null among integer ids makes of `17850`).
    """
    array = _contiguous(column)
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), pa.string())
    if pa.types.is_floating(array.type):
        finite = pc.is_finite(array).fill_null(False)
        array = pc.if_else(finite, array, None)
        whole = pc.min(pc.equal(pc.trunc(array), array)).as_py()
        small = (pc.max(pc.abs(array)).as_py() or 0) < 2**53
        array = array.cast(pa.int64()) if whole and small else array
    if not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)):
        return _cast_to_text(array)
    text = pc.utf8_trim_whitespace(array.cast(pa.string()))
    empty = pc.equal(pc.binary_length(text), 0)
    return pc.if_else(empty, None, text) if pc.any(empty).as_py() else text


def to_numbers(column: pa.ChunkedArray | pa.Array) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Numbers `[rows]`, NaN where there is none, and whether each is a number or nothing."""
    array = _contiguous(column)
    if _is_text(array.type):
        text = to_text(array)
        is_number = pc.match_substring_regex(text, _NUMBER)
        number = pc.if_else(is_number, text, None).cast(pa.float64())
        readable = pc.or_(is_number, pc.match_substring_regex(text, _NO_NUMBER)).fill_null(True)
        return _floats(number), readable.to_numpy(zero_copy_only=False)
    try:
        number = array.cast(pa.float64(), safe=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        nothing = array.is_null().to_numpy(zero_copy_only=False)
        return np.full(len(array), np.nan), nothing
    return _floats(number), np.ones(len(array), np.bool_)


def to_milliseconds(
    column: pa.ChunkedArray | pa.Array, timestamp_format: str = "auto"
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """UTC milliseconds `[rows]` (0 where unreadable) and whether each could be read.

    Timestamps without a zone are taken as UTC. `timestamp_format` is `auto`, `epoch_s`,
    `epoch_ms` or `iso8601`; `auto` tells seconds, milliseconds and ISO 8601 apart row by row.
    """
    array = _contiguous(column)
    if pa.types.is_timestamp(array.type) or pa.types.is_date(array.type):
        millis = array.cast(pa.timestamp("ms", getattr(array.type, "tz", None)), safe=False)
        readable = millis.is_valid().to_numpy(zero_copy_only=False)
        return millis.cast(pa.int64()).fill_null(0).to_numpy(), readable
    if pa.types.is_integer(array.type) or pa.types.is_floating(array.type):
        return _epoch(_floats(array.cast(pa.float64(), safe=False)), timestamp_format)
    text = to_text(array)
    if timestamp_format in ("epoch_s", "epoch_ms"):
        number, readable = to_numbers(text)
        millis, present = _epoch(number, timestamp_format)
        return millis, readable & present
    if timestamp_format == "iso8601":
        return _iso8601(text)
    epochs = pc.match_substring_regex(text, _EPOCH).fill_null(False)
    number = _floats(pc.if_else(epochs, text, None).cast(pa.float64()))
    if pc.all(epochs).as_py():
        return _epoch(number, timestamp_format)
    millis, readable = _iso8601(pc.if_else(epochs, None, text))
    from_epoch, is_epoch = _epoch(number, timestamp_format)
    return np.where(is_epoch, from_epoch, millis), readable | is_epoch


def _epoch(
    number: NDArray[np.float64], timestamp_format: str
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    readable = np.isfinite(number) & (np.abs(number) < 2.0**62)
    number = np.where(readable, number, 0.0)
    in_seconds = np.abs(number) < _MAX_EPOCH_S
    if timestamp_format in ("epoch_s", "epoch_ms"):
        in_seconds = np.full(len(number), timestamp_format == "epoch_s")
    millis = np.where(in_seconds, number * 1000.0, number)
    return np.clip(np.round(millis), -(2.0**62), 2.0**62).astype(np.int64), readable


def _iso8601(text: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    for kind in (pa.timestamp("ms"), pa.timestamp("ms", tz="UTC")):
        try:  # one cast of the block: the way of a well-formed log
            millis = text.cast(kind)
        except pa.ArrowInvalid:
            continue
        readable = millis.is_valid().to_numpy(zero_copy_only=False)
        return millis.cast(pa.int64()).fill_null(0).to_numpy(), readable
    # one bad row fails a whole cast, and zones may be mixed: pandas converts row by row in C
    text = pc.if_else(pc.match_substring_regex(text, r"^\d{4}"), text, None)  # it knows "today"
    parsed = pd.to_datetime(
        pd.Series(text.to_pandas(), dtype="object"), format="ISO8601", utc=True, errors="coerce"
    )
    readable = parsed.notna().to_numpy()
    millis = parsed.to_numpy(dtype="datetime64[ms]").astype(np.int64)
    return np.where(readable, millis, 0), readable


def _cast_to_text(array: pa.Array) -> pa.Array:
    try:
        text = array.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):  # nested values have no text form
        text = pa.array([None if v is None else str(v) for v in array.to_pylist()], pa.string())
    return text


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _floats(array: pa.Array) -> NDArray[np.float64]:
    return np.array(array.to_numpy(zero_copy_only=False), np.float64)


def _contiguous(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):  # more text than one chunk can hold stays split
        array = pa.concat_arrays([chunk.cast(pa.large_string()) for chunk in array.chunks])
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array

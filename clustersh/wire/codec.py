"""Bytes to Structs and back, with one error for whatever a peer may send."""

from __future__ import annotations

from typing import TypeVar

import msgspec

T = TypeVar("T")


class WireError(ValueError):
    """What a peer sent can't be read; the message says where it is wrong, and repeats none of its content."""


def decode_json(content: bytes, kind: type[T]) -> T:
    """Return *content* (JSON) as *kind*. Raises WireError."""
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise WireError(str(error)) from error


def encode_json(value: object) -> bytes:
    """Return *value* as JSON. Raises WireError where text holds what UTF-8 can't (a lone surrogate)."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError as error:
        raise WireError("text must be UTF-8") from error

"""How a check says that it failed."""

from __future__ import annotations

from ..wire.units import format_duration


class Failed(Exception):
    """What was checked isn't as it should be; the message says how it is."""


def no_answer(timeout_s: float) -> Failed:
    """Return what to say of something that took too long."""
    return Failed(f"no answer within {format_duration(timeout_s)}")


def of_os(error: OSError) -> Failed:
    """Return what to say of an error of the operating system."""
    return Failed(error.strerror or str(error) or type(error).__name__)

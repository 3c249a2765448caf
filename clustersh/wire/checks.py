"""What a machine's probe tells of its checks: one line of JSON on the job's stdout."""

from __future__ import annotations

from typing import Annotated

import msgspec

from .codec import WireError, decode_json

MAX_CHECKS = 64
MAX_ANSWER = 32 << 10
"""Bytes of the line: 64 checks of 200 bytes, which JSON may write as two each."""


class Checked(msgspec.Struct, frozen=True):
    """What came of one check; *said* is the machine's own words."""

    ok: bool
    said: Annotated[str, msgspec.Meta(max_length=200)]


class Answer(msgspec.Struct, frozen=True):
    """The line. The results stand in the order in which the checks were asked for."""

    checks: Annotated[tuple[Checked, ...], msgspec.Meta(max_length=MAX_CHECKS)]


def decode_answer(output: bytes) -> tuple[Checked, ...]:
    """Return what the probe that printed *output* says. Raises WireError."""
    if len(output) > MAX_ANSWER:
        raise WireError(f"a probe's answer is at most {MAX_ANSWER} bytes")
    return decode_json(output, Answer).checks

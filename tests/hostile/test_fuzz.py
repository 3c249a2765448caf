"""Any bytes at all, and valid ones with a few changes, through every decoder (decoders.py): none may crash.

`make fuzz` runs the same with many more examples (CLUSTERSH_FUZZ, the number for each decoder).
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clustersh.wire import link
from tests.hostile.decoders import DECODERS
from tests.hostile.seeds import SEEDS

EXAMPLES = int(os.environ.get("CLUSTERSH_FUZZ", "200"))
_CONFUSING = (
    b"\0",
    b"\xff",
    b"\x80",
    b"-",
    b"%",
    b"/",
    b"..",
    b'"',
    b"\\ud800",
    b"9" * 25,
    b"1e999",
    b"\xdf\xff\xff\xff\xff",
)


@st.composite
def changed(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """One of *seeds* with some of it cut, doubled or replaced."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(1, 4))):
        at, to = sorted((draw(st.integers(0, len(data))), draw(st.integers(0, len(data)))))
        new = draw(
            st.one_of(st.just(b""), st.just(data[at:to] * 2), st.sampled_from(_CONFUSING), st.binary(max_size=8))
        )
        data = data[:at] + new + data[to if draw(st.booleans()) else min(at + len(new), len(data)) :]
    return data


@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder_takes_any_bytes(name: str) -> None:
    seeds = SEEDS.get(name)
    any_bytes = st.binary(max_size=400)

    # Made here: pytest-twisted wraps a test that hypothesis drives once for each of its parameters.
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(data=st.one_of(any_bytes, changed(seeds)) if seeds else any_bytes)
    def check(data: bytes) -> None:
        DECODERS[name](data)

    check()


@pytest.mark.parametrize(("name", "seed"), [(name, seed) for name, seeds in SEEDS.items() for seed in seeds])
def test_a_seed_is_what_its_decoder_is_meant_to_take(name: str, seed: bytes) -> None:
    DECODERS[name](seed)


@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder_takes_what_is_nested_or_repeated_without_end(name: str) -> None:
    for data in (b"[" * 200_000, b'{"a":' * 100_000, b"\x91" * 200_000, b"\x81\xa1a" * 100_000, b"9" * 200_000, b""):
        DECODERS[name](data)


def test_every_decoder_of_the_wire_is_here() -> None:
    """A new module under wire/ that decodes must come here too."""
    decoding = {
        path.stem
        for path in Path(link.__file__).parent.glob("*.py")
        if re.search(r"^def (decode|parse)_|Decoder\(", path.read_text(), re.MULTILINE)
    }
    covered = {name.split(" ")[0].removeprefix("wire.") for name in DECODERS if name.startswith("wire.")} | {"codec"}
    assert decoding <= covered, decoding - covered

"""`make fuzz`: atheris (coverage-guided) on each decoder, in a process of its own, for so many seconds; as many at a
time as there are processors.

A finding ends the run with exit status 1; the bytes that did it are kept as ``.fuzz/<decoder>/crash-*``. What was
interesting stays in ``.fuzz/<decoder>/corpus``, where the next run begins.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

FOLDER = Path(".fuzz")
MAX_BYTES = 4096


def fuzz_one(name: str, seconds: int) -> None:
    """Fuzz one decoder in this process, which atheris ends."""
    import atheris

    with atheris.instrument_imports(include=["clustersh"]):
        from tests.hostile.decoders import DECODERS
        from tests.hostile.seeds import SEEDS

    corpus, crashes = folders(name)
    for seed in SEEDS.get(name, []):
        (corpus / hashlib.sha256(seed).hexdigest()).write_bytes(seed)
    limits = [f"-max_total_time={seconds}", f"-max_len={MAX_BYTES}", "-timeout=10", "-rss_limit_mb=1024"]
    atheris.Setup([sys.argv[0], *limits, f"-artifact_prefix={crashes}/", "-verbosity=0", str(corpus)], DECODERS[name])
    atheris.Fuzz()


def folders(name: str) -> tuple[Path, Path]:
    """Return where what is interesting and what crashed are kept."""
    crashes = FOLDER / name.replace(" ", "-").replace(".", "-")
    (crashes / "corpus").mkdir(parents=True, exist_ok=True)
    return crashes / "corpus", crashes


def found_in(name: str, seconds: int) -> bool:
    """Fuzz one decoder in a process of its own, and say what came of it."""
    own = [sys.executable, "-m", "tests.hostile.fuzz", "--here", "--seconds", str(seconds), name]
    done = subprocess.run(own, capture_output=True, text=True, check=False)
    print(f"{name}: {'nothing found' if done.returncode == 0 else 'FOUND'}", flush=True)
    if done.returncode:
        print(done.stdout[-2000:], done.stderr[-4000:], file=sys.stderr)
    return bool(done.returncode)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("decoder", nargs="*", help="which ones; all of them by default")
    parser.add_argument("--seconds", type=int, default=15, help="for each decoder")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        fuzz_one(options.decoder[0], options.seconds)
        return 0
    from tests.hostile.decoders import DECODERS

    names = options.decoder or list(DECODERS)
    with ThreadPoolExecutor(os.cpu_count()) as processes:
        found = sum(processes.map(partial(found_in, seconds=options.seconds), names))
    print(f"{len(names)} decoders, {options.seconds} s each, {found} with findings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

"""`python -m tests.faults.soak`: see `--help`."""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from .soak import Soak, Wanted


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="soak",
        description="Runs commands from several clients while agents, coordinator and links are killed at random; "
        "then checks that nothing was lost, run twice, missing or left behind. The last line is the figures.",
    )
    parser.add_argument("--seconds", type=float, default=180.0, help="how long faults are injected (180)")
    parser.add_argument("--seed", type=int, help="repeats the schedule and the commands of the run that printed it")
    parser.add_argument("--raw", type=int, default=6, help="clients that send raw requests (6)")
    parser.add_argument("--programs", type=int, default=4, help="clients that start whole programs (4)")
    parser.add_argument(
        "--restart", choices=("coordinator", "ws1"), help="only kill and restart this service, in a loop"
    )
    parser.add_argument("--times", type=int, default=200, help="how often, with --restart (200)")
    parser.add_argument("--keep", metavar="DIR", type=Path, help="use this new folder, and leave it")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if given.seed is None else given.seed
    wanted = Wanted(seed, given.seconds, given.raw, given.programs, given.restart, given.times)
    folder = given.keep or Path(tempfile.mkdtemp(prefix="soak-", dir="/tmp" if os.geteuid() == 0 else None))
    folder.mkdir(exist_ok=True)
    folder.chmod(0o711)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the services are ended
    try:
        return Soak(folder, wanted).run()
    finally:
        if given.keep is None:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())

"""How loaded a machine is, as one number: lower is better."""

from __future__ import annotations

from ...wire.link import Vitals
from . import Candidate

CPU, MEMORY, DISK = 0.4, 0.3, 0.3
STALE_S = 90.0
"""Seconds after which a machine's vitals say nothing any more: three of its reports are missing."""
MOST_CPUS = 64
"""Processors that a machine is believed to have: they are its own word, and one that has more wants no protection."""
LEAST_STEP = 0.05
"""What a job just placed on a machine adds to its score, at the least: more than what machines differ by chance."""


def score(vitals: Vitals) -> float:
    """Return the score of a machine that says this of itself: 0 is idle and empty, 1 busy and full."""
    return (CPU * vitals.cpu + MEMORY * vitals.memory + DISK * disk(vitals)) / 100


def disk(vitals: Vitals) -> float:
    """Return the percentage in use of the fuller disk; full where none can be told: saying less gains nothing."""
    return max((part for part in (vitals.disk_home, vitals.disk_root) if part is not None), default=100.0)


def fresh(candidate: Candidate) -> Vitals | None:
    """Return the candidate's vitals, unless they are stale."""
    return candidate.vitals if candidate.age_s is not None and candidate.age_s <= STALE_S else None


def cpu(candidate: Candidate) -> float:
    """Return the percentage of its processors that are taken as in use: what it says, or more.

    A machine's own word is bounded by what the coordinator sees: each job that runs there may take a processor, so it
    is at least the jobs for each processor. There is no upper end: what is said of memory and disk can't be checked,
    and lies about these must not outweigh any number of jobs.
    """
    vitals = fresh(candidate)
    return max(vitals.cpu if vitals else 0.0, 100 * candidate.running / _cpus(candidate))


def placing_score(candidate: Candidate) -> float:
    """Return what placement compares: the score with a believable load, and with the jobs that were just placed."""
    vitals = fresh(candidate)
    said = MEMORY * vitals.memory + DISK * disk(vitals) if vitals else 0.0
    return (CPU * cpu(candidate) + said) / 100 + candidate.recent * step(candidate)


def step(candidate: Candidate) -> float:
    """Return what each job just placed adds: as much as it would if it took a processor, LEAST_STEP at the least."""
    return max(CPU / _cpus(candidate), LEAST_STEP)


def _cpus(candidate: Candidate) -> int:
    return min(max(candidate.cpus, 1), MOST_CPUS)

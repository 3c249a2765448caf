"""A run on many machines, as ``run`` and ``wait`` show it. Nothing here needs a reactor."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from ...cli.console import Console
from ...cli.errors import NOTHING_RAN, REFUSED
from ...wire.rest import Job, Run
from ...wire.units import format_size
from .. import left_out
from ..layouts import Layout
from ..outcome import cut_message
from .folding import each, fold
from .names import node_set
from .sections import Gap, Sections, Source, suffices
from .shares import fair_share
from .summary import MAX_HINTS, exit_status, none_started, summary
from .words import Kind, kind_of

UNLIMITED = 1 << 62


class ManyForm(NamedTuple):
    """How it is shown: at most *limit* bytes of output in all (None: all of it)."""

    layout: Layout
    limit: int | None


def can_show_heads(run: Run, form: ManyForm) -> bool:
    """Whether what came with *run* is all that is to be shown."""
    share = _share(run, form)
    return all(suffices(job, share) for job in run.jobs if job.same_as is None)


async def present(console: Console, run: Run, form: ManyForm, source: Source | None = None) -> int:
    """Print all that is to be said of *run*, and return the exit status."""
    return await tell(console, run, await print_outputs(console, run, form, source))


async def tell(console: Console, run: Run, gaps: Sequence[Gap], *, interrupted: bool = False) -> int:
    """Say on stderr what became of *run* and what is to be done next, and return the exit status.

    *interrupted*: its caller had it cancelled.
    """
    status = exit_status(run, cut=bool(gaps), interrupted=interrupted)
    cut, unread = [gap for gap in gaps if not gap.unread], [gap for gap in gaps if gap.unread]
    if cut:
        await _tell_cut(console, run, cut)
    for gap in unread[:MAX_HINTS]:
        hint = f"clustersh cat {gap.job.machine} {run.uuid}"
        await console.error(f"the output of {node_set(gap.machines)} can't be read now: {gap.unread}", (hint,))
    if status in (NOTHING_RAN, REFUSED):
        await console.error(*none_started(run.jobs, run.stopped))
    elif run.stopped:
        why = f"why those failed: clustersh cat {run.uuid}; nothing ran on those that did not start"
        await console.error(run.stopped, (why,))
    await console.err(f"{summary(run)}\n")
    kinds = {kind_of(job, run.unconfirmed) for job in run.jobs}
    if Kind.UNCONFIRMED in kinds and not kinds & {Kind.RUNNING, Kind.WAITING}:
        await console.hint(f"clustersh wait {run.uuid} tells what became of it, once those machines are heard of again")
    if run.left_out:
        await console.hint(left_out.hint(run.left_out))
    return status


def _share(run: Run, form: ManyForm) -> int:
    """Return how many bytes of each output may be shown; what equal jobs printed counts once where it is shown once."""
    if form.limit is None:
        return UNLIMITED
    return fair_share((job.output_bytes for job in run.jobs if job.same_as is None), form.limit)


async def print_outputs(
    console: Console, run: Run, form: ManyForm, source: Source | None = None, *, told: Collection[str] = ()
) -> list[Gap]:
    """Print what the machines printed, and return what of it is not shown; *told* names those whose line was."""
    share = _share(run, form)
    if form.layout.documents:
        from .documents import job_documents, lines, run_document

        documents, gaps = await job_documents([job for job in run.jobs if job.machine not in told], share, source)
        await console.out(run_document(run, documents) if form.layout is Layout.JSON else lines(documents))
        return gaps
    sections = Sections(console, share, source)
    if form.layout is Layout.DIFF:
        await sections.print_diff(fold(run.jobs, run.jobs))
    else:
        together = each if form.layout is Layout.EACH else fold
        await sections.print_all(together(run.jobs, run.jobs))
    return sections.gaps


async def _tell_cut(console: Console, run: Run, gaps: Sequence[Gap]) -> None:
    if len(gaps) == 1:
        message = cut_message(gaps[0].job)
        await console.error(message.text, message.hints)
        return
    hints = [_cat(gap.job) for gap in gaps[:MAX_HINTS]]
    more = f"all of it: clustersh cat {run.uuid}" + (f" ({len(gaps)} outputs)" if len(gaps) > MAX_HINTS else "")
    names = node_set([name for gap in gaps for name in gap.machines])
    await console.error(f"output length exceeded limit, what {names} printed was cut.", (*hints, more))


def _cat(job: Job) -> str:
    return f"{format_size(job.output_bytes)}: clustersh cat {job.machine} {job.uuid}"

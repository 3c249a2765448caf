"""A run and its jobs as JSON (docs/json.md)."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from ...wire.output import Stream
from ...wire.rest import Base64, Job, Run, text_or_base64
from ..show import job_document
from .sections import Gap, Source, head_of, suffices


def run_document(run: Run, jobs: list[dict[str, object]]) -> bytes:
    """Return the document of *run* and its *jobs*, as a line."""
    fields: dict[str, object] = {name: getattr(run, name) for name in run.__struct_fields__}
    return msgspec.json.encode({**fields, "jobs": jobs}) + b"\n"


def lines(documents: list[dict[str, object]]) -> bytes:
    """Return *documents* as a line each."""
    return b"".join(msgspec.json.encode(document) + b"\n" for document in documents)


async def job_documents(
    jobs: Iterable[Job], share: int, source: Source | None = None
) -> tuple[list[dict[str, object]], list[Gap]]:
    """Return the documents of *jobs*, at most *share* bytes of output in each, and what they lack."""
    documents: list[dict[str, object]] = []
    gaps: list[Gap] = []
    for job in jobs:
        output, unread = await _output(job, share, source)
        there = sum(map(len, output))
        cut = there < job.output_bytes
        fields: dict[str, str | Base64] = dict(zip(("stdout", "stderr"), map(text_or_base64, output), strict=True))
        documents.append(job_document(job, fields, truncated=cut))
        if cut:
            gaps.append(Gap((job.machine,), job, unread))
    return documents, gaps


async def _output(job: Job, share: int, source: Source | None) -> tuple[tuple[bytes, bytes], str]:
    if source is None or suffices(job, share):
        return head_of(job, share), ""
    kept = {Stream.STDOUT: bytearray(), Stream.STDERR: bytearray()}

    async def keep(stream: Stream, data: bytes | memoryview) -> None:
        kept[stream] += data

    unread = await source.read(job, min(job.output_bytes, share), keep)
    if not any(kept.values()):
        return head_of(job, share), unread
    return (bytes(kept[Stream.STDOUT]), bytes(kept[Stream.STDERR])), unread

"""A coordinator on loopback with one run on many machines, whose jobs end when a test says so."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from typing import Any

import msgspec
from twisted.internet.task import deferLater
from twisted.web.http import Request

from clustersh.frontend.many.shares import fair_share
from clustersh.wire.fleet import is_plain
from clustersh.wire.jobs import State
from clustersh.wire.problems import Kind, ProblemError
from clustersh.wire.rest import Cancelled, Ends, Job, Run, RunRequest, text_or_base64

from .coordinator_double import UUID, Double

Pieces = list[tuple[int, bytes]]


class FleetDouble(Double):
    """Answers as docs/rest.md says of many machines. *ended* has the names of those whose job ended, in that order,
    *targets* what targets mean.
    """

    def __init__(self, reactor: Any) -> None:
        super().__init__(reactor)
        self.target = "all"
        self.jobs: dict[str, Job] = {}
        self.outputs: dict[str, Pieces] = {}
        self.ended: list[str] = []
        self.head_limit = 128 << 10
        self.about: dict[str, Any] = {}
        self.cancelled: list[str] = []
        self.away: set[str] = set()
        self.reading: list[str] = []
        self.most_at_once = 0
        self.targets: dict[str, tuple[str, ...]] = {}

    def add(self, name: str, output: bytes = b"", errors: bytes = b"", *, running: bool = False, **how: Any) -> None:
        """Add a machine whose job ended: as *how* says, or with 0."""
        how = how or {"status": State.COMPLETED, "exit_code": 0}
        job = Job(UUID, name, "me@test", "x", "", State.REQUESTED, "2026-11-20T10:31:07Z", timeout_s=300.0)
        if how.get("status") not in (State.NOT_STARTED, State.REFUSED):
            job = msgspec.structs.replace(job, status=State.RUNNING, started="2026-11-20T10:31:07Z")
        self.jobs[name] = job
        self.outputs[name] = [piece for piece in ((1, output), (2, errors)) if piece[1]]
        if not running:
            self.finish(name, **how)

    def finish(self, name: str, **how: Any) -> None:
        """Let the job of *name* end."""
        how = how or {"status": State.COMPLETED, "exit_code": 0}
        self.jobs[name] = msgspec.structs.replace(self.jobs[name], duration_s=3.0, **how)
        self.ended.append(name)
        self._wake()

    @property
    def whole(self) -> bool:
        return all(job.status.ended for job in self.jobs.values())

    def told(self, names: Iterable[str], limit: int, *, fold: bool) -> list[Job]:
        """Return the jobs of *names* with their output: at most *limit* bytes in all, each once if *fold*."""
        jobs: list[Job] = []
        first: dict[tuple[bytes, bytes], str] = {}
        for name in names:
            job = self.jobs[name]
            streams = self._streams(name)
            sizes = [len(stream) for stream in streams]
            job = msgspec.structs.replace(
                job, output_bytes=sum(sizes), stdout_bytes=sizes[0], stderr_bytes=sizes[1], stdout="", stderr=""
            )
            if job.status.ended and fold and first.setdefault(streams, name) != name:
                job = msgspec.structs.replace(job, same_as=first[streams])
            jobs.append(job)
        share = fair_share((job.output_bytes for job in jobs if job.same_as is None), limit)
        return [self._with_text(job, min(share, self.head_limit)) for job in jobs]

    def _with_text(self, job: Job, share: int) -> Job:
        if job.same_as is not None or not job.status.ended:
            return job
        out, err = self._streams(job.machine)
        out = out[:share]
        err = err[: share - len(out)]
        return msgspec.structs.replace(
            job,
            stdout=text_or_base64(out),
            stderr=text_or_base64(err),
            truncated=len(out) + len(err) < job.output_bytes,
        )

    def _streams(self, name: str) -> tuple[bytes, bytes]:
        out, err = (b"".join(data for which, data in self.outputs[name] if which == number) for number in (1, 2))
        return out, err

    def run(self, limit: int, *, fold: bool, target: str = "") -> Run:
        names = sorted(self.targets[target] if target else self.jobs)
        jobs = self.told(names, limit, fold=fold)
        raw = is_plain(self.target)
        return Run(
            UUID, "me@test", self.target, "x", "2026-11-20T10:31:07Z", tuple(jobs), self.unconfirmed, raw, **self.about
        )

    async def _find(self, request: Request, call: str, query: Any, headers: Any, body: bytes) -> Any:
        if self.refuse is not None or call in self.answers:
            return await super()._find(request, call, query, headers, body)
        fold = query.get("fold") == "true"
        if call == "POST /v1/runs":
            given = msgspec.json.decode(body, type=RunRequest)
            assert self.keys.setdefault(headers["idempotency-key"], given) == given
            self.target = given.target
            await self._wait_whole(headers)
            return self.run(given.limit_bytes, fold=fold)
        if call == f"GET /v1/runs/{UUID}":
            await self._wait_whole(headers)
            return self.run(int(query.get("limit", 128 << 10)), fold=fold, target=query.get("target", ""))
        if call == f"GET /v1/runs/{UUID}/ends":
            return await self._ends(query, headers)
        if call == f"POST /v1/runs/{UUID}/cancel":
            return self._cancel(list(self.jobs))
        if found := re.fullmatch(rf"POST /v1/jobs/(.+)/{UUID}/cancel", call):
            return self._cancel([found[1]])
        if found := re.fullmatch(rf"GET /v1/jobs/(.+)/{UUID}/output", call):
            return await self._output_of(request, found[1], query)
        return await super()._find(request, call, query, headers, body)

    async def _ends(self, query: Any, headers: Any) -> Ends:
        after, limit = int(query["after"]), int(query["limit"])
        if len(self.ended) <= after and not self.whole:
            await self._wait(headers)
        names = self.ended[after:][:1000]
        jobs = [self.told([name], limit, fold=False)[0] for name in names]
        ended = self.whole and after + len(names) == len(self.ended)
        return Ends(tuple(jobs), after + len(names), ended, self.unconfirmed)

    async def _wait_whole(self, headers: Any) -> None:
        if not self.whole:
            await self._wait(headers)

    async def _wait(self, headers: dict[str, str]) -> None:
        self.job = msgspec.structs.replace(self.job, status=State.RUNNING)
        await super()._wait(headers)

    def _cancel(self, names: list[str]) -> Cancelled:
        running = [name for name in names if not self.jobs[name].status.ended]
        self.cancelled += running
        for name in running:
            self.finish(name, status=State.CANCELLED, signal=15)
        return Cancelled(UUID, tuple(running), tuple(name for name in names if name not in running))

    def print(self, name: str, data: bytes, stream: int = 1) -> None:
        """Let the job of *name* print *data*."""
        self.outputs[name].append((stream, data))
        self._wake()

    def _wake(self) -> None:
        waiting, self.waiting = self.waiting, []
        for one in waiting:
            one.callback(None)

    async def _output_of(self, request: Request, name: str, query: Any) -> bytes | None:
        if name in self.away:
            raise ProblemError(Kind.OUTPUT_UNAVAILABLE, f"{name} is offline; the output is kept there", started=True)
        if self.jobs[name].status is State.NOT_STARTED:
            raise ProblemError(Kind.OUTPUT_UNAVAILABLE, f"{UUID} on {name} has no output: {self.jobs[name].reason}")
        self.reading.append(name)
        self.most_at_once = max(self.most_at_once, len(self.reading))
        try:
            self.pieces = self.outputs[name]
            answer = self._output(request, query)
            if query.get("follow") != "true":
                await deferLater(self.reactor, 0.01)  # so that those who ask at the same time are seen
                return answer
            return await self._follow(request, name, query, answer or b"")
        finally:
            self.reading.remove(name)

    async def _follow(self, request: Request, name: str, query: Any, answer: bytes) -> bytes | None:
        told = len(self.outputs[name])
        request.write(answer)
        while not self.jobs[name].status.ended and not request._disconnected:
            await self._wait({"prefer": "wait=1"})
            for which, data in self.outputs[name][told:]:
                request.write(struct.pack(">BI", which, len(data)) + data)
            told = len(self.outputs[name])
        return b"" if not request._disconnected else None

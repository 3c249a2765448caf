"""A coordinator on loopback that speaks docs/rest.md as far as a test tells it to."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import msgspec
from twisted.internet.defer import Deferred
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from clustersh.wire.jobs import State
from clustersh.wire.problems import STATUS, Kind, ProblemError
from clustersh.wire.rest import (
    FRAMES,
    PROBLEM_JSON,
    BlobNames,
    Cancelled,
    Job,
    Run,
    RunRequest,
    StdinProgress,
    text_or_base64,
)

UUID = "01992f3e-7c1a-7abc-8def-0123c41f9a02"


class Double(Resource):
    """Answers the calls of docs/rest.md from plain attributes; *lose* makes answers get lost.

    One run is known. `pieces` is its output in order: (1 stdout or 2 stderr, bytes). A run is answered as `job`, with
    heads made of the pieces once it ended.
    """

    isLeaf = True

    def __init__(self, reactor: Any) -> None:
        super().__init__()
        self.reactor = reactor
        self.job = Job(UUID, "ws1", "me@test", "true", "", State.COMPLETED, "2026-11-20T10:31:07Z", exit_code=0)
        self.pieces: list[tuple[int, bytes]] = []
        self.unconfirmed: tuple[str, ...] = ()
        self.keys: dict[str, RunRequest] = {}
        self.calls: list[str] = []
        self.queries: list[dict[str, str]] = []
        self.blobs: dict[str, bytes] = {}
        self.stdin = bytearray()
        self.stdin_ended = False
        self.take_at_once = 1 << 30
        self.lose: list[str] = []
        self.cut_after: list[int] = []
        self.refuse: ProblemError | None = None
        self.answers: dict[str, Callable[[dict[str, str]], Any]] = {}
        self.waiting: list[Deferred[None]] = []
        self.on_call: Callable[[str], None] = lambda call: None
        self.connections: set[Any] = set()

    @property
    def output(self) -> bytes:
        return b"".join(data for _, data in self.pieces)

    def end(self, **changes: Any) -> None:
        """Let the job end, and answer those who wait for it."""
        self.job = msgspec.structs.replace(self.job, **changes)
        waiting, self.waiting = self.waiting, []
        for one in waiting:
            one.callback(None)

    def as_run(self, limit: int = 128 << 10) -> Run:
        sizes = [sum(len(data) for which, data in self.pieces if which == number) for number in (1, 2)]
        heads = {1: b"", 2: b""}
        for which, data in self.pieces:
            heads[which] += data[: max(0, limit - sum(map(len, heads.values())))]
        job = msgspec.structs.replace(
            self.job,
            output_bytes=sum(sizes),
            stdout_bytes=sizes[0],
            stderr_bytes=sizes[1],
            truncated=sum(sizes) > limit,
        )
        if job.status.ended:
            job = msgspec.structs.replace(job, stdout=text_or_base64(heads[1]), stderr=text_or_base64(heads[2]))
        return Run(UUID, "me@test", "ws1", job.command, job.requested, (job,), self.unconfirmed)

    def render(self, request: Request) -> int | bytes:
        if request.method == b"HEAD":
            return b""  # a kept connection proves to be alive
        assert request.content is not None and request.uri is not None
        path = unquote(request.uri.partition(b"?")[0].decode())
        call = f"{request.method.decode()} {path}"
        query = {name.decode(): values[-1].decode() for name, values in (request.args or {}).items()}
        self.connections.add(request.transport)
        self.calls.append(call)
        self.queries.append(query)
        self.on_call(call)
        headers = {
            name.decode().lower(): values[-1].decode() for name, values in request.requestHeaders.getAllRawHeaders()
        }
        Deferred.fromCoroutine(self._answer(request, call, query, headers, request.content.read()))
        return NOT_DONE_YET

    async def _answer(self, request: Request, call: str, query: Any, headers: Any, body: bytes) -> None:
        try:
            answer = await self._find(request, call, query, headers, body)
        except ProblemError as problem:
            request.setResponseCode(STATUS[problem.problem.kind])
            request.setHeader(b"content-type", PROBLEM_JSON.encode())
            request.write(msgspec.json.encode(problem.problem))
            request.finish()
            return
        if self.lose and call.startswith(self.lose[0]):
            self.lose.pop(0)
            request.transport.abortConnection()
        elif answer is not None and request.transport is not None and not request._disconnected:
            request.write(answer if isinstance(answer, bytes) else msgspec.json.encode(answer))
            request.finish()

    async def _find(self, request: Request, call: str, query: Any, headers: Any, body: bytes) -> Any:
        if self.refuse is not None:
            raise self.refuse
        if call in self.answers:
            return self.answers[call](query)
        if call == "POST /v1/runs":
            given = msgspec.json.decode(body, type=RunRequest)
            key = headers["idempotency-key"]
            if self.keys.setdefault(key, given) != given:
                raise ProblemError(Kind.KEY_CONFLICT, "another request had this key")
            await self._wait(headers)
            return self.as_run(given.limit_bytes)
        if call in (f"GET /v1/runs/{UUID}", f"GET /v1/runs/{UUID[-8:]}"):
            await self._wait(headers)
            return self.as_run()
        if call in (f"GET /v1/jobs/ws1/{UUID}", f"GET /v1/jobs/ws1/{UUID[-8:]}"):
            return self.as_run().jobs[0]
        if call.endswith("/cancel") and call.startswith("POST "):
            was_ended = self.job.status.ended
            if not was_ended:
                self.end(status=State.CANCELLED, signal=15, duration_s=4.0)
            return Cancelled(UUID, () if was_ended else ("ws1",), ("ws1",) if was_ended else ())
        if call.endswith("/output"):
            return self._output(request, query)
        if call.endswith("/stdin"):
            offset = int(query["offset"])
            assert offset <= len(self.stdin), "a gap in stdin"
            self.stdin += body[len(self.stdin) - offset :][: self.take_at_once]
            self.stdin_ended = self.stdin_ended or query["end"] == "true"
            return StdinProgress(len(self.stdin))
        if call == "POST /v1/blobs/missing":
            names = msgspec.json.decode(body, type=BlobNames)
            return BlobNames(tuple(name for name in names.sha256 if name not in self.blobs))
        if call.startswith("PUT /v1/blobs/"):
            name = call.rpartition("/")[2]
            assert hashlib.sha256(body).hexdigest() == name
            self.blobs[name] = body
            return b""
        raise ProblemError(Kind.NOT_FOUND, f"no such call: {call}")

    async def _wait(self, headers: dict[str, str]) -> None:
        prefer = headers.get("prefer", "")
        if not self.job.status.ended and prefer:
            ended: Deferred[None] = Deferred()
            self.waiting.append(ended)
            ended.addTimeout(float(prefer.removeprefix("wait=")), self.reactor, lambda *_: None)
            await ended

    def _output(self, request: Request, query: dict[str, str]) -> bytes | None:
        wanted = {"stdout": (1,), "stderr": (2,), "both": (1, 2)}[query["stream"]]
        data = [(which, piece) for which, piece in self.pieces if which in wanted]
        size = sum(len(piece) for _, piece in data)
        offset = int(query.get("offset", 0))
        if "tail" in query:
            lines = b"".join(piece for _, piece in data).splitlines(keepends=True)
            offset = size - len(b"".join(lines[len(lines) - int(query["tail"]) :]))
        length = int(query.get("length", size))
        request.setHeader(b"clustersh-offset", str(offset).encode())
        request.setHeader(b"clustersh-size", str(size).encode())
        request.setHeader(b"content-type", FRAMES.encode())
        answer, position = bytearray(), 0
        for which, piece in data:
            part = piece[max(0, offset - position) :][: max(0, length)]
            position += len(piece)
            if part:
                length -= len(part)
                answer += (struct.pack(">BI", which, len(part)) if query["stream"] == "both" else b"") + part
        if not self.cut_after:
            return bytes(answer)
        request.setHeader(b"content-length", str(len(answer)).encode())
        request.write(bytes(answer[: self.cut_after.pop(0)]))
        # What was written is to arrive before the connection goes.
        request.transport.loseConnection()
        return None


def serve(reactor: Any, double: Double) -> tuple[int, Callable[[], Deferred[Any]]]:
    """Serve *double* on loopback; return its port, and what stops it."""
    site = Site(double)
    site.noisy = False  # type: ignore[attr-defined]
    port = reactor.listenTCP(0, site, interface="127.0.0.1")

    def stop() -> Deferred[Any]:
        for transport in double.connections:
            transport.abortConnection()
        return port.stopListening()

    return port.getHost().port, stop

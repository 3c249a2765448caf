"""Errors between the programs: one Problem (RFC 9457) on the wire, one ProblemError in code."""

from __future__ import annotations

import enum

import msgspec


class Kind(enum.StrEnum):
    """The stable types of problems; each has one HTTP status."""

    BAD_REQUEST = "bad-request"
    UNKNOWN_MACHINE = "unknown-machine"
    UNKNOWN_GROUP = "unknown-group"
    EMPTY_TARGET = "empty-target"
    UNKNOWN_RUN = "unknown-run"
    UNKNOWN_CLIENT = "unknown-client"
    UNKNOWN_BLOB = "unknown-blob"
    UNKNOWN_PAIRING = "unknown-pairing"
    UNKNOWN_TOKEN = "unknown-token"  # noqa: S105 - no password
    AMBIGUOUS_ID = "ambiguous-id"
    NOT_FOUND = "not-found"
    METHOD_NOT_ALLOWED = "method-not-allowed"
    UNCONFIRMED = "unconfirmed"
    NOT_RUNNING = "not-running"
    KEY_CONFLICT = "key-conflict"
    NAME_TAKEN = "name-taken"
    WRONG_CODE = "wrong-code"
    WRONG_TOKEN = "wrong-token"  # noqa: S105
    NO_CERTIFICATE = "no-certificate"
    UNTRUSTED = "untrusted"
    WRONG_ROLE = "wrong-role"
    PLAIN_HTTP = "plain-http"
    ADDRESS_NOT_ALLOWED = "address-not-allowed"
    POLICY = "policy"
    RATE_LIMITED = "rate-limited"
    TOO_LARGE = "too-large"
    OUTPUT_UNAVAILABLE = "output-unavailable"
    RANGE_NOT_SATISFIABLE = "range-not-satisfiable"
    STORAGE = "storage"
    UNREACHABLE = "unreachable"
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal"


STATUS: dict[Kind, int] = {
    Kind.BAD_REQUEST: 400,
    Kind.UNKNOWN_MACHINE: 404,
    Kind.UNKNOWN_GROUP: 404,
    Kind.EMPTY_TARGET: 404,
    Kind.UNKNOWN_RUN: 404,
    Kind.UNKNOWN_CLIENT: 404,
    Kind.UNKNOWN_BLOB: 404,
    Kind.UNKNOWN_PAIRING: 404,
    Kind.UNKNOWN_TOKEN: 404,
    Kind.NOT_FOUND: 404,
    Kind.METHOD_NOT_ALLOWED: 405,
    Kind.AMBIGUOUS_ID: 409,
    Kind.UNCONFIRMED: 409,
    Kind.NOT_RUNNING: 409,
    Kind.KEY_CONFLICT: 409,
    Kind.NAME_TAKEN: 409,
    Kind.WRONG_CODE: 403,
    Kind.WRONG_TOKEN: 403,
    Kind.NO_CERTIFICATE: 401,
    Kind.UNTRUSTED: 403,
    Kind.WRONG_ROLE: 403,
    Kind.PLAIN_HTTP: 403,
    Kind.ADDRESS_NOT_ALLOWED: 403,
    Kind.POLICY: 403,
    Kind.RATE_LIMITED: 429,
    Kind.TOO_LARGE: 413,
    Kind.OUTPUT_UNAVAILABLE: 409,
    Kind.RANGE_NOT_SATISFIABLE: 416,
    Kind.STORAGE: 507,
    Kind.UNREACHABLE: 409,
    Kind.UNAVAILABLE: 503,
    Kind.INTERNAL: 500,
}


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """An RFC 9457 problem document, ``application/problem+json``.

    *detail* is one sentence for people, *hint* what to do next. *started* says whether a command ran: None is unknown.
    """

    type: str
    detail: str
    status: int = 0
    title: str = ""
    hint: str = ""
    uuid: str = ""
    started: bool | None = False

    @property
    def kind(self) -> Kind:
        """The type, as far as this version knows it."""
        try:
            return Kind(self.type)
        except ValueError:
            return Kind.INTERNAL


class ProblemError(Exception):
    """A request can't be answered as asked; carries what the other side is told."""

    def __init__(
        self, kind: Kind, detail: str, *, hint: str = "", uuid: str = "", started: bool | None = False
    ) -> None:
        super().__init__(detail)
        self.problem = Problem(
            type=kind.value,
            title=kind.value.replace("-", " "),
            status=STATUS[kind],
            detail=detail,
            hint=hint,
            uuid=uuid,
            started=started,
        )

    @classmethod
    def received(cls, problem: Problem) -> ProblemError:
        """Raise again here what a peer answered."""
        error = cls(problem.kind, problem.detail)
        error.problem = problem
        return error

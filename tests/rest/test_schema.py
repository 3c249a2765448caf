"""The API is as it describes itself: schemathesis calls a live coordinator with what fits, and with what does not."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from clustersh.wire.link import PATH as LINK

from .conftest import Recorder

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
EXAMPLES = 15
"""Cases for each call of each kind: valid ones for what is there, valid ones for anything, invalid ones."""
REFUSED = {
    "POST /v1/adopt": "it takes a host that ssh reaches",
    "POST /v1/admin/approve": "it takes a code that a pairing made",
    "POST /pair": "it takes a certificate request",
    "POST /pair/{pairing}": "it takes a nonce",
    "GET /pair/{pairing}": "it takes a pairing",
    "GET /v1/jobs/{machine}/{uuid}/blobs/{sha256}": "it takes an open job with a file",
    "PUT /v1/blobs/{sha256}": "it takes the SHA-256 of what is sent",
}
"""The calls that can't be met with generated data, and why; their success is tested elsewhere."""


class Caller:
    """Calls with generated cases, and remembers which statuses each call was answered with."""

    def __init__(self, recorder: Recorder) -> None:
        run = recorder.start("known")
        self._recorder = recorder
        index = recorder.sessions[""].get(f"{recorder.url}/simple/clustersh/", timeout=30).text
        wheel = index.partition("/packages/")[2].partition("#")[0]
        packages = {"project": "clustersh", "file": wheel}
        uuids = {"id": run["uuid"], "uuid": run["uuid"]}
        self._known = {**packages, **uuids, "machine": "ws1", "name": "web", "sha256": "0" * 64}
        self._bodies = {
            "POST /v1/runs": {"target": "ws1", "command": {"shell": "true"}},
            "POST /v1/plans": {"target": "ws1", "command": {"shell": "true"}},
            "POST /v1/policy/test": {"target": "ws1", "command": {"shell": "true"}},
            "POST /v1/groups/{name}/add": {"target": "ws1"},
            "POST /v1/groups/{name}/remove": {"target": "ws1"},
            "POST /v1/labels": {"target": "ws1", "labels": {"gpu": "yes"}},
            "POST /v1/admin/accept": {"name": "ws1"},
            **recorder.throwaway,
        }
        self._queries = {"GET /v1/targets": {"target": "ws1"}, "GET /v1/labels": {"target": "ws1"}}
        self.statuses: dict[str, set[int]] = defaultdict(set)

    def strategies(self, operation: Any) -> list[SearchStrategy[Any]]:
        found, fixed = [operation.as_strategy()], dict[str, Any]()
        names = [each.name for each in operation.path_parameters]
        if names and not operation.path.startswith("/pair"):
            fixed["path_parameters"] = {name: self._known[name] for name in names}
        if operation.label in self._bodies:
            fixed.update(body=self._bodies[operation.label], media_type="application/json")
        if operation.label in self._queries:
            fixed["query"] = self._queries[operation.label]
        if fixed:
            found.append(operation.as_strategy(**fixed))
        if names or list(operation.query) or list(operation.headers) or list(operation.body):
            found.append(operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))
        return found

    def call(self, case: Any) -> None:
        if case.operation.label == "POST /v1/runs" and isinstance(case.body, dict) and "target" in case.body:
            # So that what else was made is looked at, too.
            case.body = {**case.body, "target": "ws1"}
        if case.operation.path.startswith("/v1/groups/"):
            self._recorder.add_group("web")
        security = case.operation.definition.raw["security"]
        roles = [role for each in security for role in each["certificate"]]
        role = "frontend" if "frontend" in roles else "".join(roles)
        if case.operation.label == "POST /v1/leave":
            role = "leaving"
        session = self._recorder.sessions[role]
        answer = case.call_and_validate(
            base_url=self._recorder.url,
            session=session,
            verify=session.verify,
            checks=CHECKS,
            timeout=30,
            allow_redirects=False,
        )
        self.statuses[case.operation.label].add(answer.status_code)


def test_every_answer_is_as_described(recorder: Recorder) -> None:
    document = recorder.sessions["frontend"].get(f"{recorder.url}/v1/openapi.json", timeout=30).json()
    caller, wrong = Caller(recorder), []
    for found in schemathesis.openapi.from_dict(document).get_all_operations():
        operation = found.ok()
        if operation.path == LINK:
            continue
        for strategy in caller.strategies(operation):
            try:
                check(caller, strategy)
            except (Exception, BaseExceptionGroup) as error:
                # Each is worth knowing: schemathesis's own failures, and connections that were cut.
                wrong.append(f"{operation.label}: {type(error).__name__} {error}")
    assert not wrong, "\n\n".join(wrong)
    assert recorder.commands(), "no command reached the machine"
    good = {label for label, statuses in caller.statuses.items() if any(status < 300 for status in statuses)}
    assert caller.statuses.keys() - good == REFUSED.keys()


def check(caller: Caller, strategy: SearchStrategy[Any]) -> None:
    @given(strategy)
    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def each(case: Any) -> None:
        caller.call(case)

    each()

"""The API's description in OpenAPI 3.1, made of the table of calls and the types of what they take and answer."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, cast, get_type_hints

import msgspec

from .. import __version__
from ..wire.codec import encode_json
from ..wire.problems import STATUS, Kind, Problem
from ..wire.rest import JSON, PROBLEM_JSON
from .api import Api
from .callers import Caller
from .http import Request
from .routes import CLIENTS, OCTETS, Answer, Content, Header, Pieces, Route

PATH = "/v1/openapi.json"

_ANY = (Kind.BAD_REQUEST, Kind.ADDRESS_NOT_ALLOWED, Kind.INTERNAL)
_CERTIFIED = (Kind.NO_CERTIFICATE, Kind.UNTRUSTED, Kind.WRONG_ROLE, Kind.PLAIN_HTTP)
_PATH_PARTS = {
    "machine": ("A machine's name.", "^[A-Za-z0-9._-]{1,64}$"),
    "name": ("A group's name, with or without its @.", "^@?[A-Za-z0-9._-]{1,64}$"),
    "id": ("A run's whole uuid, or 8 or more hex digits from its end.", "^[0-9A-Fa-f-]{8,36}$"),
    "uuid": ("A run's whole uuid.", "^[0-9a-f-]{36}$"),
    "sha256": ("The SHA-256 of the content: 64 hex digits.", "^[0-9a-f]{64}$"),
    "project": ("A project's normalised name.", "^[a-z0-9-]{1,100}$"),
    "file": ("A file's name, as the project's page has it.", "^[A-Za-z0-9._+-]{1,300}$"),
    "pairing": ("The pairing's id, from its offer.", "^[!-~]+$"),
}
"""What the variables in paths are, and what they look like."""
_MEANING = {
    101: "The connection is a WebSocket's from now on (subprotocol `clustersh.1`).",
    200: "Done.",
    202: "Taken in; it has not ended yet.",
    204: "Done; there is nothing to tell.",
    206: "The range that was asked for.",
}


class OpenApiCalls:
    """``/v1/openapi.json``: what *api* serves."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._document = b""

    def add_to(self, api: Api) -> None:
        """Add the call."""
        api.add("GET", PATH, self.openapi, CLIENTS, answers={200: (JSON,)})

    async def openapi(self, request: Request, caller: Caller) -> Answer:
        """Describe this API, in OpenAPI 3.1."""
        self._document = self._document or encode_json(describe(self._api.routes))
        return Answer(self._document)


def describe(routes: Collection[Route]) -> dict[str, Any]:
    """Return the OpenAPI document of *routes*, as JSON will have it."""
    types = _Types(routes)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = re.sub(r"<(\w+)>", r"{\1}", route.path)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, types)
    certificate = {
        "type": "mutualTLS",
        "description": "A certificate that the coordinator issued; its roles are named.",
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "clustersh", "version": __version__, "license": {"name": "MIT", "identifier": "MIT"}},
        "paths": paths,
        "components": {"schemas": types.components, "securitySchemes": {"certificate": certificate}},
    }


class _Types:
    """The JSON schemas of all types that *routes* name."""

    def __init__(self, routes: Collection[Route]) -> None:
        named = list(dict.fromkeys([Problem, *(kind for route in routes for kind in _types_of(route))]))
        schemas, components = msgspec.json.schema_components(named, ref_template="#/components/schemas/{name}")
        self._schemas = dict(zip(named, map(_in_ecma, schemas), strict=True))
        queries = {route.query.__name__ for route in routes}
        self.components = {name: _in_ecma(each) for name, each in components.items() if name not in queries}
        self._queries = {name: _in_ecma(components[name]) for name in queries}

    def schema(self, kind: type[msgspec.Struct]) -> Any:
        return self._schemas[kind]

    def parameters(self, query: type[msgspec.Struct]) -> Iterator[dict[str, Any]]:
        """Yield the query parameters that *query* stands for."""
        for name, schema in self._queries[query.__name__]["properties"].items():
            described = {key: schema.pop(key) for key in ("description",) if key in schema}
            yield {"name": name, "in": "query", "schema": _without_null(schema), **described}


def _operation(route: Route, types: _Types) -> dict[str, Any]:
    summary, _, more = (inspect.getdoc(route.handler) or "").partition("\n")
    parameters = [
        *map(_path_parameter, re.findall(r"<(\w+)>", route.path)),
        *types.parameters(route.query),
        *map(_header_parameter, route.headers),
    ]
    operation = {
        "operationId": route.handler.__name__,
        "summary": summary,
        "description": inspect.cleandoc(more),
        "parameters": parameters,
        "requestBody": _request_body(route, types),
        "responses": {**_answers(route, types), **_problems(route, types)},
        "security": [{"certificate": [role.value]} for role in sorted(route.roles or ())],
    }
    return {name: value for name, value in operation.items() if value or name == "security"}


def _path_parameter(name: str) -> dict[str, Any]:
    description, pattern = _PATH_PARTS[name]
    schema = {"type": "string", "pattern": pattern}
    return {"name": name, "in": "path", "required": True, "schema": schema, "description": description}


def _header_parameter(header: Header) -> dict[str, Any]:
    return {
        "name": header.name,
        "in": "header",
        "required": header.required,
        "schema": header.schema,
        "description": header.description,
    }


def _request_body(route: Route, types: _Types) -> dict[str, Any] | None:
    if route.body is None:
        return None
    if isinstance(route.body, type):
        return {"required": True, "content": {JSON: {"schema": types.schema(route.body)}}}
    most = "" if isinstance(route.body, Pieces) else f"At most {route.body.limit} bytes."
    return {"description": most, "required": True, "content": {OCTETS: {"schema": {}}}}


def _answers(route: Route, types: _Types) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for status, content in _contents(route).items():
        said: dict[str, Any] = {"description": _MEANING[status]}
        if isinstance(content, tuple):
            said["content"] = {media: {"schema": {}} for media in content}
        elif content is not None:
            said["content"] = {JSON: {"schema": types.schema(content)}}
        found[str(status)] = said
    return found


def _problems(route: Route, types: _Types) -> dict[str, Any]:
    by_status: dict[int, list[str]] = {}
    for kind in dict.fromkeys((*_common_problems(route), *route.problems)):
        by_status.setdefault(STATUS[kind], []).append(f"`{kind.value}`")
    content: dict[str, Any] = {PROBLEM_JSON: {"schema": types.schema(Problem)}}
    if route.explain is not None:  # it tells them as it tells everything
        content |= {media: {"schema": {}} for media in cast(tuple[str, ...], route.answers[200])}
    return {
        str(status): {"description": f"A problem: {', '.join(kinds)}.", "content": content}
        for status, kinds in sorted(by_status.items())
    }


def _common_problems(route: Route) -> Iterator[Kind]:
    """Yield what any call of that form may be refused for."""
    yield from _ANY
    if route.roles is not None:
        yield from _CERTIFIED
    if route.method != "GET":
        yield Kind.TOO_LARGE
    if "<" in route.path:
        yield Kind.NOT_FOUND


def _contents(route: Route) -> Mapping[int, Content]:
    if route.answers:
        return route.answers
    answer = get_type_hints(route.handler)["return"]
    return {204: None} if answer is type(None) else {200: answer}


def _types_of(route: Route) -> Iterator[type[msgspec.Struct]]:
    yield route.query
    if isinstance(route.body, type):
        yield route.body
    yield from (content for content in _contents(route).values() if isinstance(content, type))


def _in_ecma(schema: Any) -> Any:
    """Return *schema* with its patterns as JSON Schema writes them: Python's anchors are not known there."""
    if isinstance(schema, list):
        return [_in_ecma(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: value.replace(r"\A", "^").replace(r"\Z", "$")
        if name == "pattern" and isinstance(value, str)
        else _in_ecma(value)
        for name, value in schema.items()
    }


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return *schema* for a query parameter: one that isn't there is not sent, so null is no value."""
    kinds = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    if len(kinds) != 1:
        return schema
    return {**kinds[0], **({"default": schema["default"]} if schema.get("default") is not None else {})}

"""Byte ranges of outputs, from the agent through its link; and how long a call says that it waited."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests

from ..real.programs import Cluster
from .conftest import FOLDERS, session

WAIT = {"Prefer": "wait=30"}


class Client:
    """A client's calls to a cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._url = f"https://{cluster.address}"
        self._session = session(cluster.client.path / FOLDERS["frontend"])
        self._runs = 0

    def call(self, method: str, path: str, headers: dict[str, str] | None = None, **rest: object) -> requests.Response:
        return self._session.request(method, f"{self._url}{path}", headers=headers, timeout=60, **rest)  # type: ignore[arg-type]

    def run(self, shell: str, wait: int = 30, **request: object) -> str:
        """Return the path of a job."""
        self._runs += 1
        headers = {"Idempotency-Key": f"output-{self._runs}", "Prefer": f"wait={wait}"}
        body = {"target": "ws1", "command": {"shell": shell}, **request}
        answer = self.call("POST", "/v1/runs", headers, json=body)
        return f"/v1/jobs/ws1/{answer.json()['uuid']}"

    def part(self, job: str, asked: str, query: str = "stream=stdout") -> requests.Response:
        return self.call("GET", f"{job}/output?{query}", {"Range": asked})


@pytest.fixture(scope="module")
def client(cluster: Cluster) -> Iterator[Client]:
    yield Client(cluster)


@pytest.fixture(scope="module")
def numbers(client: Client) -> tuple[str, bytes]:
    """A job that printed more than one message of the link holds."""
    return client.run("seq 200000"), b"".join(b"%d\n" % number for number in range(1, 200_001))


@pytest.mark.parametrize(("first", "last"), [(0, 0), (5, 11), (100_000, 900_000), (1_288_890, 1_288_894)])
def test_a_range_is_those_bytes(client: Client, numbers: tuple[str, bytes], first: int, last: int) -> None:
    job, whole = numbers
    answer = client.part(job, f"bytes={first}-{last}")
    assert (answer.status_code, answer.content) == (206, whole[first : last + 1])
    assert answer.headers["Content-Range"] == f"bytes {first}-{last}/{len(whole)}"
    assert answer.headers["Content-Length"] == str(len(answer.content))
    assert answer.headers["Clustersh-Offset"] == str(first)


def test_the_rest_and_the_end(client: Client, numbers: tuple[str, bytes]) -> None:
    job, whole = numbers
    assert client.part(job, "bytes=1000000-").content == whole[1_000_000:]
    assert client.part(job, "bytes=-7").content == b"200000\n"
    assert client.part(job, "bytes=1288000-99999999").content == whole[1_288_000:]


def test_what_is_not_there_is_not_satisfiable(client: Client, numbers: tuple[str, bytes]) -> None:
    job, whole = numbers
    for query, size in (("stream=stdout", len(whole)), ("stream=stderr", 0)):
        answer = client.part(job, f"bytes={len(whole)}-", query)
        assert (answer.status_code, answer.json()["type"]) == (416, "range-not-satisfiable")
        assert answer.headers["Content-Range"] == f"bytes */{size}"


def test_both_streams_have_no_ranges(client: Client, numbers: tuple[str, bytes]) -> None:
    job, whole = numbers
    answer = client.part(job, "bytes=0-1", "stream=both&length=4")
    assert (answer.status_code, answer.content) == (200, b"\x01\x00\x00\x00\x04" + whole[:4])
    assert "Accept-Ranges" not in answer.headers
    assert client.call("GET", f"{job}/output?stream=stdout&length=1").headers["Accept-Ranges"] == "bytes"


@pytest.mark.parametrize("query", ["offset=1", "length=1", "tail=1", "follow=true"])
def test_a_range_goes_alone(client: Client, numbers: tuple[str, bytes], query: str) -> None:
    assert client.part(numbers[0], "bytes=0-1", f"stream=stdout&{query}").status_code == 400


def test_no_bytes_are_asked_for_and_none_come(client: Client, numbers: tuple[str, bytes]) -> None:
    answer = client.call("GET", f"{numbers[0]}/output?stream=stdout&length=0")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["Clustersh-Size"] == str(len(numbers[1]))


def test_a_range_of_a_job_that_runs_has_no_size_yet(client: Client) -> None:
    job = client.run("printf 'begun\\n'; read -r line", wait=0, stdin=True)
    # Waits until the first bytes are there.
    with client.call("GET", f"{job}/output?stream=stdout&follow=true&length=6", stream=True) as answer:
        assert next(answer.iter_content(6)) == b"begun\n"
    answer = client.part(job, "bytes=2-99")
    assert (answer.status_code, answer.content) == (206, b"gun\n")
    assert answer.headers["Content-Range"] == "bytes 2-5/*"
    client.call("POST", f"{job}/cancel")
    assert client.call("GET", job, WAIT).json()["status"] == "cancelled"
    assert client.part(job, "bytes=2-99").headers["Content-Range"] == "bytes 2-5/6"


def test_an_answer_says_how_long_it_was_waited_for(client: Client, numbers: tuple[str, bytes]) -> None:
    assert client.call("GET", numbers[0], WAIT).headers["Preference-Applied"] == "wait=30"
    assert client.call("GET", numbers[0], {"Prefer": "wait=900"}).headers["Preference-Applied"] == "wait=60"
    assert "Preference-Applied" not in client.call("GET", numbers[0]).headers


def test_an_idempotency_key_is_one_run(client: Client) -> None:
    def ask(key: str, shell: str) -> requests.Response:
        body = {"target": "ws1", "command": {"shell": shell}}
        return client.call("POST", "/v1/runs", {**WAIT, "Idempotency-Key": key}, json=body)

    first, again, other = ask("one", "echo 1"), ask("one", "echo 1"), ask("one", "echo 2")
    assert first.json() == again.json()
    assert (other.status_code, other.json()["type"]) == (409, "key-conflict")
    assert ask("not one", "echo 1").status_code == 400

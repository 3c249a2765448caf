"""What the agent says it was told of the ledger, in pages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest_twisted

from clustersh.agent import witnesses
from clustersh.wire.link import Witness, Witnesses, WitnessList


async def at_once(function, *words):
    return function(*words)


def job(folder: Path, day: str, uuid: str, seq: int) -> None:
    (folder / "jobs" / day / uuid).mkdir(parents=True)
    content = json.dumps({"uuid": uuid, "record": {"witness": {"seq": seq, "hash": f"h{seq}"}, "client": "c"}})
    (folder / "jobs" / day / uuid / "job.json").write_text(content)


@pytest_twisted.ensureDeferred
async def test_every_job_and_the_journal_are_told_of_page_by_page(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(witnesses, "PAGE", 2)
    for number in range(1, 6):
        job(tmp_path, f"2026-11-{20 + number // 3}", f"0{number}", number)
    (tmp_path / "jobs" / "2026-11-20" / "02" / "job.json").write_text("{damaged")
    (tmp_path / "jobs" / "2026-11-25" / "09").mkdir(parents=True)
    entries = [{"is": "acknowledged", "uuid": "05", "witness": {"seq": 9, "hash": "h9"}}, {"is": "ended", "uuid": "05"}]
    (tmp_path / "journal").write_text("".join(json.dumps(entry) + "\n" for entry in entries) + '{"is":"run')
    reader, found, after, pages = witnesses.WitnessReader(tmp_path, at_once), set(), "", 0
    while True:
        answer = await reader.answer(Witnesses(7, after))
        assert isinstance(answer, WitnessList) and answer.request == 7
        found.update(answer.witnesses)
        pages += 1
        if not answer.next:
            break
        assert answer.next > after
        after = answer.next
    assert found == {Witness(seq, f"h{seq}") for seq in (1, 3, 4, 5, 9)}
    assert pages == 3

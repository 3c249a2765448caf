"""Two agents with one key, as a copied home makes them."""

from __future__ import annotations

import shutil
from pathlib import Path

from .programs import Cluster, end, eventually, make_home

CONFIG = '[agent]\nreconnect_max = "2s"\nenvironment = "service"\n'


def test_the_newer_agent_wins_and_the_other_stays_away_saying_why(own_cluster: Cluster, tmp_path: Path) -> None:
    cluster, first = own_cluster, own_cluster.agent
    (first.path / "config.toml").write_text(CONFIG)
    first.environ["WHO"] = "first"
    end(cluster.agent_process)
    second = make_home(tmp_path, "copy")
    shutil.copytree(first.path, second.path)
    second.environ["WHO"] = "second"

    def who() -> str:
        return cluster.sh("run", "ws1", "echo $WHO").out.strip()

    def said(words: str) -> int:
        return cluster.coordinator.log.read_text().count(words)

    cluster.restart_agent()
    assert who() == "first"
    copy = second.start("clusteragent")
    eventually(lambda: "another agent with this machine's key" in first.log.read_text(), what=cluster.logs())
    assert who() == "second"
    online, away = said("ws1 is online"), said("is turned away")
    status = first.run("clusteragent", "status")
    assert status.status == 1 and f"remove {first.path / 'agent'} and run: clusteragent enroll" in status.out, status
    # It asks again and again, at its longest back-off, and disturbs nobody.
    eventually(lambda: said("is turned away") >= away + 3, what=cluster.logs())
    assert who() == "second"
    assert said("ws1 is online") == online, cluster.logs()
    assert first.log.read_text().count("another agent with this machine's key") == 1
    end(copy)
    eventually(lambda: who() == "first", what=cluster.logs())

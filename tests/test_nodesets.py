"""ClusterShell as it is used here: deaf to this host's files, and folding what it expands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from clustersh.folding import node_set
from clustersh.nodesets import expand
from clustersh.wire.ids import MACHINE_NAME

from .conftest import ROOT

LOOK = """
import sys
opened = []
sys.addaudithook(lambda event, words: opened.append(str(words[0])) if event == "open" else None)
from clustersh.nodesets import GroupResolver, GroupSource, NodeSet, expand
source = GroupSource("mine", {"web": "web[1-2]"}, "web[1-2]")
print(expand("web[1-3]"), sorted(NodeSet("@web,@*,web*", resolver=GroupResolver(source))))
assert not [path for path in opened if path.endswith(".conf")], opened
"""


def test_files_that_configure_clush_here_are_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "clustershell"
    folder.mkdir()
    (folder / "defaults.conf").write_text("this is no configuration\n")
    (folder / "groups.conf").write_text("[Main]\ndefault: local\n[local]\nmap: echo stranger\nall: echo stranger\n")
    done = subprocess.run(
        [sys.executable, "-c", LOOK],
        cwd=ROOT,
        env={**os.environ, "XDG_CONFIG_HOME": str(tmp_path), "CLUSTERSHELL_CFGDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "['web1', 'web2', 'web3'] ['web1', 'web2']\n"


@given(st.lists(st.from_regex(MACHINE_NAME, fullmatch=True), min_size=1, max_size=20, unique=True))
def test_what_is_folded_is_the_same_when_it_is_expanded(names: list[str]) -> None:
    assert sorted(expand(node_set(names))) == sorted(names)


def test_names_that_differ_in_leading_zeros_stay_apart() -> None:
    assert node_set(["web1", "web01", "web2", "web02", "web001"]) == "web[1-2,01-02,001]"
    assert expand("web[1-2,01-02,001]") == ["web1", "web2", "web01", "web02", "web001"]

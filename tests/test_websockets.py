"""What the programs leave out of Autobahn, and that nothing else notices."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

PROGRAM = """
import os, sys, json, importlib
importlib.import_module(sys.argv[1])
import autobahn.util
found = [name for name in ("cbor2", "click", "_nvx_utf8validator", "_nvx_xormasker") if name in sys.modules]
import cbor2
print(json.dumps([found, autobahn.util._HAS_CLICK, os.environ.get("AUTOBAHN_USE_NVX"), cbor2.loads(cbor2.dumps(7))]))
"""


@pytest.mark.parametrize("module", ["clustersh.websockets", "clustersh.coordinator.service", "clustersh.agent.service"])
def test_autobahn_comes_without_what_is_not_used_here(module: str) -> None:
    for given in (None, "1"):
        environ = {name: value for name, value in os.environ.items() if name != "AUTOBAHN_USE_NVX"}
        environ |= {} if given is None else {"AUTOBAHN_USE_NVX": given}
        done = subprocess.run([sys.executable, "-c", PROGRAM, module], env=environ, capture_output=True, check=True)
        assert json.loads(done.stdout) == [[], False, given, 7]

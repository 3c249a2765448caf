# What a checkout can do. It needs only make and a Python >= 3.11 with venv (PYTHON=... chooses one).
#
#   make run            try it: coordinator, agent and a logged-in client on this machine, in .home
#   make stop           stop what `make run` started
#   make test           the whole test suite, some fifteen minutes on two cores (ARGS=... is handed to pytest;
#                       WORKERS=4 processes share it, 0 is none but pytest itself)
#   make test-fast      without the tests that start real programs
#   make test-standby   the tests that start `clustersh`, each command through a standby
#   make soak           minutes of commands while services and links are killed at random (ARGS="--seed 1 --seconds 600")
#   make soak-restarts  200 restarts under load of an agent, then of the coordinator
#   make fuzz           some six minutes of changed bytes through every decoder (hypothesis, and atheris on Linux;
#                       ARGS="--seconds 60" for each)
#   make lint           linter, formatter and type checker
#   make bench          all benchmarks (some twenty minutes); writes docs/benchmarks.md (needs OpenSSH's sshd, and gcc;
#                       ARGS="latency guard" are some of them, whose parts are written anew)
#   make bench-NAME     one: latency, launch, throughput, bulk, intake, history, memory, fleet-size, fleet-idle,
#                       fleet-peers, ssh-machines, guard
#                       (ARGS=... is handed to it; fleet-peers takes pdsh where it is, and Ansible and Salt from the
#                       package index, into .venv/peers)
#   make deb            build the Debian package in dist (DEB_PYTHON=... is the system's Python that it is for)
#   make clean          stop, and remove .venv, .home and everything that was built

VENV := .venv
BIN := $(VENV)/bin
STATE := $(CURDIR)/.home
CLUSTERSH := CLUSTERSH_HOME="$(STATE)" $(BIN)/clustersh
PORT ?=
ARGS ?=
# Tests of whole programs wait for timers as often as for a processor: four processes keep two cores busy.
WORKERS ?= 4
# A file goes to one worker whole, in the order of tests/conftest.py: the longest first, not those of the most tests.
SHARED := -n $(WORKERS) --dist loadfile --no-loadscope-reorder
# Without what pytest keeps of the tests' modules, every worker compiles all of them again.
export PYTHONDONTWRITEBYTECODE :=
DEB_PYTHON ?= /usr/bin/python3

.PHONY: help run stop test test-fast test-standby fuzz soak soak-restarts lint bench venv deb clean

help:
	@sed -n 's/^#   \(make .*\)/\1/p' Makefile

define FIND_PYTHON
fits() { "$$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }
if [ -n "$(PYTHON)" ]; then
    fits "$(PYTHON)" && { echo "$(PYTHON)"; exit 0; }
    echo "ERROR: PYTHON=$(PYTHON) is not a Python >= 3.11" >&2; exit 1
fi
for python in python3 python3.14 python3.13 python3.12 python3.11; do
    fits "$$python" && { echo "$$python"; exit 0; }
done
echo "ERROR: no Python >= 3.11 found (tried python3 and python3.14 to python3.11)" >&2
echo "hint: install one, or name it: make PYTHON=/path/to/python3" >&2
exit 1
endef
export FIND_PYTHON

# The default port, or a free one where another program has it; nothing where the coordinator runs already.
define FIND_PORT
import socket, sys
from pathlib import Path
from clustersh.home import read_running
for port in (5672, 0) if read_running(Path(sys.argv[1])) is None else ():
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        print(probe.getsockname()[1])
        break
endef
export FIND_PORT

# An existing .venv is brought up to date, not thrown away: another terminal may be using it.
$(VENV)/.installed: setup.cfg pyproject.toml
	@python=$$(sh -c "$$FIND_PYTHON") || exit 1; \
	echo "making $(VENV) with $$python"; \
	"$$python" -m venv $(VENV) || { \
	    echo "ERROR: could not make $(VENV) (Debian and Ubuntu: install python3-venv)" >&2; exit 1; }
	@# Before 25, pip's own start of a program imports `re`, which is more than half of what a launcher costs. What
	@# venv adds of setuptools before Python 3.12 has every Python import a part of it.
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip >= 25"
	@$(BIN)/python -m pip uninstall -qq --yes setuptools
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[test,lint]"
	@touch $@

venv: $(VENV)/.installed-dev

run: $(VENV)/.installed
	@port="$(PORT)"; [ -n "$$port" ] || port=$$($(BIN)/python -c "$$FIND_PORT" "$(STATE)/coordinator") || exit 1; \
	$(CLUSTERSH) up $${port:+--port "$$port"}
	@echo; echo '$$ clustersh machines'; $(CLUSTERSH) machines
	@machine=$$($(CLUSTERSH) machines --json | \
	    $(BIN)/python -c 'import json, sys; print(json.load(sys.stdin)["machines"][0]["name"])') && \
	for command in "uname -a" "pwd; date"; do \
	    echo; echo "$$ clustersh run $$machine \"$$command\""; \
	    $(CLUSTERSH) run "$$machine" "$$command" || exit; \
	done && \
	echo && echo "Go on:  export CLUSTERSH_HOME=\"$(STATE)\" PATH=\"$(CURDIR)/$(BIN):\$$PATH\"" && \
	echo "        clustersh run $$machine \"ls -la\"; clustersh history; clustersh --help" && \
	echo "Stop:   make stop"

stop:
	@if [ -x $(BIN)/clustersh ]; then $(CLUSTERSH) down; else echo "nothing runs: there is no $(VENV)"; fi

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest $(SHARED) $(ARGS)

test-fast: $(VENV)/.installed-dev
	$(BIN)/python -m pytest $(SHARED) -m "not real" $(ARGS)

# Installers and the services' own tests start no clustersh, or one that is told not to.
test-standby: $(VENV)/.installed-dev
	CLUSTERSH_TEST_STANDBY=on $(BIN)/python -m pytest $(SHARED) tests/real \
	    --ignore tests/real/test_installers.py --ignore tests/real/test_agent_load.py \
	    --ignore tests/real/test_coordinator.py --ignore-glob 'tests/real/test_standby*' $(ARGS)

soak: $(VENV)/.installed-dev
	$(BIN)/python -m tests.faults.soak $(ARGS)

soak-restarts: $(VENV)/.installed-dev
	$(BIN)/python -m tests.faults.soak --restart ws1 $(ARGS)
	$(BIN)/python -m tests.faults.soak --restart coordinator $(ARGS)

fuzz: $(VENV)/.installed-dev
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[fuzz]"
	CLUSTERSH_FUZZ=2000 $(BIN)/python -m pytest -q -n auto tests/hostile/test_fuzz.py
	@if $(BIN)/python -c 'import atheris' 2>/dev/null; then $(BIN)/python -m tests.hostile.fuzz $(ARGS); \
	else echo "atheris does not run here: hypothesis alone"; fi

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks $(ARGS)

bench-%: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.$(subst -,_,$*) $(ARGS)

deb: $(VENV)/.installed
	$(BIN)/python packaging/debian/build.py dist --python "$(DEB_PYTHON)"

clean:
	@if [ -x $(BIN)/clustersh ] && [ -d "$(STATE)" ]; then $(CLUSTERSH) down; fi
	rm -rf $(VENV) "$(STATE)" build dist ./*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

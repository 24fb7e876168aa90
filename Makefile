# `make help` lists the commands. Everything installs itself into .venv on first use.
# The first Python that the project runs on, unless one is given.
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))
PYTHON ?= $(shell for name in python3.11 python3.12 python3 python; do \
	$$name -c '$(SUPPORTED)' 2>/dev/null && command -v $$name && break; done)
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
EXTRAS := $(VENV)/.extras
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export DVC_NO_ANALYTICS := 1
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false

.DEFAULT_GOAL := help
.PHONY: help install extras repro test safety chaos audit smoke flow ui watch bench families profile keep push plan lint clean

help:           ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(READY) ## create .venv with the pinned packages (once, about 3 minutes)

$(READY): requirements.lock
	@test -n "$(PYTHON)" && $(PYTHON) -c '$(SUPPORTED)' || \
		{ echo "Python 3.11 or 3.12 is needed: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(PY) -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	touch $@

extras: $(EXTRAS) ## all optional extras, pinned: Ray, S3, trackers and what tests them

$(EXTRAS): $(READY) requirements-extras.lock
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --requirement requirements-extras.lock
	touch $@

repro: $(READY) ## run the experiment: dvc repro, from data to reports/report.md
	$(PY) -m pipelines.repro
	@echo "report: $(CURDIR)/reports/report.md"

plan: $(READY)  ## what it takes and whether it fits, before it runs: make plan NAME=paper-gemma
	@$(PY) -m pipelines.plan $(NAME)

test: $(EXTRAS) ## lint, type-check and test, the extras too
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m pytest --numprocesses logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder

safety: $(READY) ## the real commands on more than 1,000 malformed inputs (minutes)
	SKD_INPUTS=1000 $(PY) -m pytest tests/safety

chaos: $(READY) ## faults at random moments, each survived? (FAULTS=20, SEED=1, RECORD=file): docs/chaos.md
	$(PY) -m chaos --faults $(or $(FAULTS),20) --seed $(or $(SEED),1) $(if $(RECORD),--record $(RECORD))

audit: $(READY) ## known vulnerabilities of the pinned packages; asks the package index's service
	$(PY) -m pip install --quiet --disable-pip-version-check pip-audit==2.10.1
	$(PY) -m pip_audit --strict --no-deps --disable-pip --requirement requirements.lock \
		--requirement requirements-extras.lock

smoke: $(READY) ## one task, three methods, one seed, in a copy under .scratch/smoke
	$(PY) -m pipelines.sandbox

flow: $(READY)  ## run the same graph through Prefect, stages in parallel (PULL=1, PUSH=1: the DVC remote)
	$(PY) -m pipelines.orchestration.flow run $(if $(PULL),--pull) $(if $(PUSH),--push)

ui: $(READY)    ## open a loopback Prefect server with a deployment to start and schedule (PORT=4200)
	$(PY) -m pipelines.orchestration.flow ui --port $(or $(PORT),4200)

watch: $(READY) ## how far the training is that runs here now: runs, steps, loss, time left
	@$(PY) -m pipelines.watch

bench: $(READY) ## measure the engine against peers, TRL among them: docs/benchmarks.md (10 to 16 minutes)
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps trl==1.16.0 accelerate==1.15.0
	$(PY) -m benchmarks

families: $(READY) ## is every decoder of Transformers sampled exactly, or refused? docs/families.md (minutes)
	$(PY) -m benchmarks.families

profile: $(READY) ## switch params.yaml: make profile NAME=smollm2; without NAME: list them
	@$(PY) -m pipelines.profile $(NAME)

keep: $(READY)  ## keep this run's report in git: make keep NAME=full copies it to reports/full
	@$(PY) -m pipelines.keep $(NAME)

push: $(READY) ## a best student to the Hub: make push NAME=owner/name TASK=… (DRY_RUN=1: show only, PUBLIC=1)
	@$(PY) -m pipelines.push $(NAME) $(if $(TASK),--task $(TASK)) $(if $(DRY_RUN),--dry-run) \
		$(if $(PUBLIC),--public)

lint: $(READY)  ## format and lint in place
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

clean:          ## delete resumable states and finished runs kept in .scratch
	rm -rf .scratch

# Two commands do everything on a fresh machine:  make demo   and   make test
# Variables: EXIT=1 JSON=1 YES=1 for the demo; RABBITMQ="3.10 4.3" for the tests.

VENV := .venv
BIN := $(VENV)/bin
# pip may not update itself or ask anybody; the lock makes every machine install the same.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint .ci/lock.txt
PYTEST := $(if $(RABBITMQ),RABBITMQ="$(RABBITMQ)") $(BIN)/python -m pytest -n 3 --dist loadgroup
INSTALLED := $(VENV)/installed
CHAOS := $(foreach name,SEED MINUTES JOBS RABBITMQ FAULTS CLUSTER,$(if $($(name)),$(name)="$($(name))"))
PEERS_INSTALLED := bench/.venv/installed
FUZZER_INSTALLED := tests/fuzz/.venv/installed
CHECKERS := docker/.venv/bin
CHECKERS_INSTALLED := docker/.venv/installed
BENCH := PATH="$(CURDIR)/bench/.venv/bin:$$PATH" $(foreach name,SECTIONS PEERS ROUNDS JOBS WAITING MINUTES RABBITMQ MARKDOWN,$(if $($(name)),$(name)="$($(name))"))

.DEFAULT_GOAL := help
.PHONY: help install demo test test-matrix chaos check check-docker dashboard fmt bench bench-quick fuzz lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED) ## make .venv with everything in it

$(INSTALLED): pyproject.toml .ci/lock.txt .ci/make-venv
	@sh .ci/make-venv $(VENV)
	@echo "installing brokerjobs and what it needs into $(VENV)"
	@$(PIP) --editable '.[dev]'
	@touch $@

demo: $(INSTALLED) ## a real RabbitMQ, a worker, real jobs, shown live (EXIT=1: end by itself, JSON=1: summary as JSON)
	@$(BIN)/python -m brokerjobs.demo $(if $(EXIT),--exit) $(if $(JSON),--json) $(if $(YES),--yes) $(ARGS)

test: check ## style, types, then all tests on real RabbitMQ 3.10 and 4.3
	$(PYTEST)

test-matrix: $(INSTALLED) ## all tests on RabbitMQ 3.10, 4.0 and 4.3
	@$(MAKE) --no-print-directory test RABBITMQ="3.10 4.0 4.3"

chaos: $(INSTALLED) ## random faults, every job accounted for (SEED, MINUTES, JOBS, RABBITMQ, FAULTS, CLUSTER=1)
	@$(CHAOS) $(BIN)/python -m tests.chaos

check: $(INSTALLED) ## style, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

dashboard: $(INSTALLED) ## write Grafana's dashboard from docker/grafana/overview.py
	@$(BIN)/python docker/grafana/overview.py > docker/grafana/dashboards/brokerjobs-overview.json

check-docker: $(CHECKERS_INSTALLED) ## the files of docker/ by hadolint and the schemas of Compose and Kubernetes
	$(CHECKERS)/hadolint docker/Dockerfile
	$(CHECKERS)/check-jsonschema --builtin-schema vendor.compose-spec docker/compose.yaml
	$(CHECKERS)/kubernetes-validate --strict --quiet $(addprefix docker/k8s/,namespace.yaml worker.yaml disruption.yaml)

$(CHECKERS_INSTALLED): docker/requirements.txt .ci/make-venv
	@sh .ci/make-venv docker/.venv
	@docker/.venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement docker/requirements.txt
	@touch $@

fmt: $(INSTALLED) ## format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(PEERS_INSTALLED) ## speed beside the peers (SECTIONS, PEERS, ROUNDS, JOBS, WAITING, MINUTES, RABBITMQ, MARKDOWN=1)
	@$(BENCH) bench/.venv/bin/python -m bench

bench-quick: $(INSTALLED) ## the hot paths against their floors, under 2 minutes (RABBITMQ, SECONDS)
	@$(if $(RABBITMQ),RABBITMQ="$(RABBITMQ)") $(if $(SECONDS),SECONDS="$(SECONDS)") $(BIN)/python -m bench.quick

$(PEERS_INSTALLED): bench/requirements-peers.txt pyproject.toml .ci/lock.txt .ci/make-venv
	@sh .ci/make-venv bench/.venv
	@echo "installing brokerjobs and the peers into bench/.venv"
	@bench/.venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint .ci/lock.txt \
	  --requirement bench/requirements-peers.txt --editable .
	@touch $@

fuzz: $(FUZZER_INSTALLED) ## the codec against any bytes, with pamqp as the oracle (MINUTES, TARGETS)
	@$(foreach name,MINUTES TARGETS,$(if $($(name)),$(name)="$($(name))")) tests/fuzz/.venv/bin/python -m tests.fuzz

$(FUZZER_INSTALLED): tests/fuzz/requirements.txt pyproject.toml .ci/lock.txt .ci/make-venv
	@sh .ci/make-venv tests/fuzz/.venv
	@echo "installing brokerjobs and the fuzzer into tests/fuzz/.venv"
	@tests/fuzz/.venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint .ci/lock.txt \
	  --requirement tests/fuzz/requirements.txt --editable .
	@touch $@

lock: $(INSTALLED) ## write the versions that are installed now into .ci/lock.txt
	@{ echo "# Versions for development and CI; written by 'make lock'."; \
	  $(BIN)/python -m pip freeze --exclude-editable --exclude pip --exclude setuptools; } > .ci/lock.txt

clean: ## remove .venv and caches
	rm -rf $(VENV) bench/.venv tests/fuzz/.venv docker/.venv .fuzz .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

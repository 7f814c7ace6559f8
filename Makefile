# make demo   from nothing to a table of verified, timed models and demo/report.html
# make test   everything that needs no accelerator; WITH_TORCH=1 adds the cross-checks against real torch
# make coverage  the same, and the lines of sparsejax/ that nothing ran; fails below 90 %
# make lint   format, lint, types
# make fuzz   damaged files of all kinds for SECONDS=60; make soak: long runs for MINUTES=5, memory watched
# make docs   build the documentation, strictly, into site/
# make bench  measure beside numba, NumPy, torch and scikit-learn; writes README's tables. llama.cpp is a peer where
#             it is installed (.venv/bin/pip install llama-cpp-python==0.3.36); if not, its columns get empty
# make wheel  dist/: the wheel and the source archive
# make test-core PYTHON=python3.12 VENV=.venv-3.12
#             with another Python and no extra: every import, the converters, every shipped file

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
EXTRAS_demo := plots
EXTRAS_core := test
EXTRAS_wheel := release
EXTRAS_test := test,release,sklearn,plots,bench,evolve,notebooks,text,gguf,force-field,md,distill,export,onnx
EXTRAS_lint := lint
EXTRAS_docs := docs,lint
CORE := tests/test_core.py tests/test_house.py $(wildcard tests/models/*/test_convert*.py) \
  $(addprefix tests/checkpoint/test_,torch_file.py torch_writer.py rules.py registry.py)
TORCH := torch==2.13.0 transformers
WITH_TORCH ?=
WORKERS ?= 2

MINOR := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
CONSTRAINTS := constraints/$(MINOR).txt
# Compiled programs are kept between runs; the folder is ignored by git.
test test-core coverage: export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.cache/jax

.PHONY: demo test test-core coverage lint docs fuzz soak bench wheel clean
.DEFAULT_GOAL := demo

demo: $(VENV)/installed-demo
	$(BIN)/sparsejax demo

test: $(VENV)/installed-test $(if $(WITH_TORCH),$(VENV)/installed-torch)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -q $(PYTEST_ARGS)

coverage: $(VENV)/installed-test $(if $(WITH_TORCH),$(VENV)/installed-torch)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -q --cov --cov-fail-under=90 $(PYTEST_ARGS)

test-core: $(VENV)/installed-core
	$(BIN)/python -m pytest -n $(WORKERS) -q $(CORE) $(PYTEST_ARGS)

lint: $(VENV)/installed-lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

fuzz: $(VENV)/installed-test
	$(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS),60)

soak: $(VENV)/installed-test
	$(BIN)/python -m tests.soak --minutes $(or $(MINUTES),5)

docs: $(VENV)/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(VENV)/installed-test $(VENV)/installed-torch
	$(BIN)/sparsejax bench all --json sparsejax/bench/results --readme README.md

wheel: $(VENV)/installed-wheel
	$(BIN)/python -m build --no-isolation --outdir dist

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

constraints/%.txt:
	@echo "sparsejax needs Python 3.11, 3.12 or 3.13; '$(PYTHON)' is '$*'. Say which: make PYTHON=python3.12 ..."; exit 1

$(VENV)/installed-%: $(CONSTRAINTS) pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS) --editable '.[$(EXTRAS_$*)]'
	@touch $@

$(VENV)/installed-torch: $(CONSTRAINTS) | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS) $(TORCH)
	@touch $@

clean:
	rm -rf $(VENV) .venv-3.* .cache .coverage* demo dist site

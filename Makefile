# make book    environment, notebooks, pages; prints the path to open
# make pdf     the same, and all of it as _build/pdf/book.pdf
# make test    environment, browser, tests
# make test-slurm  a sweep through a SLURM of one node on this machine; needs root, for a container
# make bench   speed and memory of each part against a named peer, about an hour; needs an idle machine
# make serve   the book at http://127.0.0.1:8000/
# make lint    style of code and notebooks, and types
# make clean   removes what was built (the environment and the records stay)
#
# PYTHON=python3.12 chooses the interpreter. PIP_OPTIONS are passed to every `pip install`; see README.md for the
# smaller CPU build of PyTorch. COHORT=PATH tells the chapters on your own images, PRIVATE=yes shows those that may not
# be published.

SHELL := /bin/bash
.DEFAULT_GOAL := book
.DELETE_ON_ERROR:
.PHONY: book pdf test test-slurm bench serve lint clean environment browser

PYTHON ?= python3
PIP_OPTIONS ?=
PROFILE ?= quick
COHORT ?= phantom
PRIVATE ?=
BOOK = $(BIN)/npcrepro book --profile $(PROFILE) --cohort '$(COHORT)' $(if $(PRIVATE),--private)
BIN := .venv/bin
# papermill dates its outputs and widgets keep their state: both would make a notebook differ without an edit.
STRIP := --extra-keys "metadata.papermill cell.metadata.papermill cell.metadata.execution metadata.widgets"

# Installs Debian packages, or fails quietly where that is not ours to do.
define apt_install
	if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then as_root=; \
	elif command -v apt-get >/dev/null && sudo -n true 2>/dev/null; then as_root="sudo -n"; \
	else false; fi && \
	$$as_root apt-get update -qq >/dev/null && \
	DEBIAN_FRONTEND=noninteractive $$as_root apt-get install -y -qq --no-install-recommends $(1) >/dev/null 2>&1
endef

book: environment
	$(BOOK)

pdf: environment browser
	$(BOOK) --pdf

test: environment browser
	@# A file stays with one worker: the book is then built once for all tests that open it. Files come in the order of
	@# tests/conftest.py, slow ones first. One thread each: workers that share two cores with several threads apiece
	@# wait for each other.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-slurm: environment
	BIN=$(BIN) tests/slurm.sh

bench: environment
	@failed=; for name in training data scaling blocks patient metrics explore; do \
	  echo "== benchmarks/$$name.py" && $(BIN)/python benchmarks/$$name.py || failed="$$failed $$name"; \
	done; if [ -n "$$failed" ]; then echo "failed:$$failed"; exit 1; fi

serve: book
	@echo "The book is at http://127.0.0.1:8000/ (Ctrl-C ends it)"
	@$(BIN)/python -m http.server 8000 --bind 127.0.0.1 --directory _build/html

lint: environment
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/nbstripout --keep-id --verify $(STRIP) notebooks/*.ipynb

clean:
	rm -rf _build .pytest_cache .ruff_cache

environment: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) is not installed; Python 3.11 or newer is needed."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: $$($(PYTHON) --version) is too old; Python 3.11 or newer is needed (make PYTHON=python3.11)."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { $(call apt_install,python3-venv); } && \
	  $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "make: $(PYTHON) cannot make virtual environments; install its venv module (Debian: apt-get install python3-venv)."; exit 1; }
	@echo "Making the environment .venv (a few minutes the first time)"
	@$(PYTHON) -m venv .venv
	@# PyTorch goes first and pinned: pip then has no reason to try other builds of it.
	@$(BIN)/pip install -q --disable-pip-version-check $(PIP_OPTIONS) "$$(grep '^torch==' constraints.txt)"
	@$(BIN)/pip install -q --disable-pip-version-check $(PIP_OPTIONS) -c constraints.txt -e '.[book,sweep,test]'
	@touch $@

browser:
	@for name in chromium chromium-browser google-chrome google-chrome-stable; do \
	  command -v $$name >/dev/null && exit 0; done; \
	echo "Installing Chromium for the tests that open the book"; \
	{ $(call apt_install,chromium); } || \
	echo "make: no Chromium here, and it cannot be installed without root; the browser tests will be skipped (Debian: apt-get install chromium)."

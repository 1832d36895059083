# Everything a checkout needs. Each target makes .venv from constraints.txt on first use.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
NAME ?=

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := "$(BIN)/python" -m pip --disable-pip-version-check

# Tests see no keys, no settings of ours and no network model hub, whatever the shell has exported.
SECRETS := $(filter LLMOPT_% LANGSMITH_% LANGCHAIN_% HF_TOKEN %_API_KEY,$(.VARIABLES))
TEST_ENV := env $(SECRETS:%=-u %) HF_HUB_OFFLINE=1 LANGSMITH_TRACING=false

.DEFAULT_GOAL := help
.PHONY: help install run test lint format docs bench wheels

help: ## show this list
	@echo "usage: make TARGET [ARGS='...'] [PYTHON=python3.12]"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 12

install: $(STAMP) ## make .venv (the other targets do so themselves)

run: $(STAMP) ## llmopt run $(ARGS); without ARGS it needs no key, GPU or network
	@"$(BIN)/llmopt" run $(ARGS)

test: $(STAMP) ## the fast tests on all cores; ARGS goes to pytest, e.g. ARGS='-m slow'
	@$(TEST_ENV) "$(BIN)/python" -m pytest -n auto --dist worksteal $(ARGS)

lint: $(STAMP) ## ruff, its formatter in check mode, mypy, the order of the rooms
	@"$(BIN)/ruff" check .
	@"$(BIN)/ruff" format --check .
	@"$(BIN)/mypy"
	@"$(BIN)/lint-imports" --no-logo

format: $(STAMP) ## rewrite the code as ruff likes it
	@"$(BIN)/ruff" check --fix-only --quiet .
	@"$(BIN)/ruff" format .

docs: $(STAMP) ## build the documentation into site/
	@NO_MKDOCS_2_WARNING=1 "$(BIN)/mkdocs" build --quiet
	@echo "site/index.html"

bench: $(STAMP) ## list the benchmarks; NAME=shapes runs one, ARGS goes to it
ifeq ($(NAME),)
	@for file in $$(grep -rl --include='*.py' '__main__' benchmarks | sort); do \
		name=$${file#benchmarks/}; \
		printf '  make bench NAME=%-24s %s\n' "$${name%.py}" "$$(sed -n '1s/"""//gp' "$$file")"; \
	done
else
	@"$(BIN)/python" "benchmarks/$(NAME).py" $(ARGS)
endif

# --no-deps: PyTorch and what comes with it are there already, built for the card's CUDA.
wheels: $(STAMP) ## pack into .wheels what benchmarks/gpu.py needs where there is no network
	@rm -rf .wheels
	@$(PIP) download -q --no-deps --only-binary :all: --python-version 3.12 \
		--platform manylinux2014_x86_64 --platform manylinux_2_28_x86_64 \
		-c constraints.txt -r benchmarks/gpu_wheels.txt -d .wheels
	@du -sm .wheels | awk '{ print $$1 " MiB in .wheels"; exit $$1 > 64 }'

# Without build isolation nothing is resolved outside the constraints: an isolated build environment
# would ignore them.
$(STAMP): pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "llmopt needs Python 3.11 or newer; choose one: make PYTHON=python3.12" >&2; exit 1; }
	@echo "Installing the pinned packages into $(VENV) (a few minutes the first time)." >&2
	@$(PIP) --version >/dev/null 2>&1 || "$(PYTHON)" -m venv --clear "$(VENV)"
	@$(PIP) install -qq -c constraints.txt hatchling editables
	@$(PIP) install -qq -c constraints.txt --no-build-isolation -e '.[dev]'
	@touch "$@"

# `make help` lists the targets. Needed: make and Python >= 3.11, nothing else.
PYTHON ?= python3
VENV ?= .venv
PORT ?= 4000
TESTS ?= tests
KEYCLOAK_PORT ?= 8080
LOAD_SECONDS ?= 600
# The stack: PROFILE=minimal or full, ENV=dev or prod; `podman-compose` may do instead of `docker compose`.
COMPOSE ?= docker compose
PROFILE ?= minimal
ENV ?= dev
STACK_dev = --project-name litellm-collections-dev --env-file .env.dev -f deploy/compose.yaml -f deploy/compose.dev.yaml --profile $(PROFILE)
STACK_prod = --env-file .env.prod -f deploy/compose.yaml --profile full
STACK = $(COMPOSE) $(STACK_$(ENV))
SERVICE ?= $(if $(filter minimaldev,$(PROFILE)$(ENV)),minimal,proxy)
BIN := $(VENV)/bin
export LITELLM_LOCAL_MODEL_COST_MAP ?= True
# Else each of the many processes of a test run compiles all modules anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install run demo keycloak setup up up-prod down logs shell migrate test test-live test-mutations test-crash test-faults test-image lint format bench bench-ingest bench-load check doctor clean lock

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

install: $(BIN)/.installed ## Make the environment and install the lock

$(BIN)/.installed: requirements.lock pyproject.toml crawler/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e ./crawler -e .
	@touch $@

run: install ## Start the proxy with the sample documents (PORT=4000 DATA_DIR=data)
	@exec $(BIN)/python examples/quickstart.py --port $(PORT)

demo: install ## Run the whole story on a free port with temporary data, and check every step
	@$(BIN)/python examples/demo.py

keycloak: ## Start a real Keycloak on loopback with a realm to try out (KEYCLOAK_PORT=8080); says what to configure
	@exec $(PYTHON) deploy/keycloak/keycloak.py --port $(KEYCLOAK_PORT) --proxy http://127.0.0.1:$(PORT)

setup: ## Make .env.dev, .env.prod and the secrets of the stack; what is there stays
	@$(PYTHON) deploy/setup.py

up: setup ## Start the stack from your source, anew when it changes (PROFILE=minimal or full)
	$(COMPOSE) $(STACK_dev) up --detach --build

up-prod: setup ## Start the whole stack with .env.prod and .secrets/prod
	@! grep -n 'example\.com' .env.prod || { echo "Put your addresses into .env.prod first."; exit 1; }
	$(COMPOSE) $(STACK_prod) up --detach

down: ## Stop the stack; data stays (PROFILE, ENV=prod)
	$(STACK) down

logs: ## Follow what the stack logs (PROFILE, ENV=prod)
	$(STACK) logs --follow --tail 100

shell: ## A shell in a container of the stack (PROFILE, ENV=prod, SERVICE=worker)
	$(STACK) exec $(SERVICE) sh

migrate: install ## Bring the database of the configuration to this version's tables; starts do it, too
	@$(BIN)/python -m plugins migrate

check: install ## Check the configuration; prints all mistakes at once
	@$(BIN)/python -m plugins check

doctor: install ## Try every part for real and say what to do; changes nothing (DOCTOR="--token-file FILE")
	@$(BIN)/python -m plugins doctor $(DOCTOR)

test: install ## Run the tests (TESTS=tests/unit: those of a folder or file)
	$(BIN)/python -m pytest $(TESTS) -n 4 --dist loadfile --no-loadscope-reorder --max-worker-restart 0

test-live: install ## Run the tests against real servers (started here, or KEYCLOAK_URL, MILVUS_URI, ... of the environment)
	$(BIN)/python -m pytest tests/live -rs

test-mutations: install ## Take each check of the rights away and see that the rights matrix notices
	$(BIN)/python -m pytest tests/mutations -n 2 --dist loadfile

test-crash: install ## Kill everything at random moments, again and again (KILLS=100, SEED of an earlier run)
	$(BIN)/python -m pytest tests/crash -rs -s

test-faults: install ## Take Redis, Postgres, Milvus and Keycloak away under load (FAULT_SECONDS=60); prints docs/faults.md's tables
	$(BIN)/python -m pytest tests/faults -rs -s

test-image: install ## Build the image and run it, locked down (BASE_IMAGE=python:3.14-slim where a registry is in reach)
	$(BIN)/python -m pytest tests/image -rs

lint: install ## Check style, types and which room imports which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/project -k "imports or sizes"

format: install ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install ## Measure what we add to the stock proxy, as one table of ratios
	$(BIN)/python -m bench

bench-ingest: install ## Measure ingestion, and what it does to the proxy beside it
	$(BIN)/python -m bench.ingest

bench-load: install ## A steady mix of chats, searches and uploads (LOAD_SECONDS=600 at each of two rates; 3600 = an hour)
	$(BIN)/python -m bench.load --seconds $(LOAD_SECONDS)

LOCK = .venv-lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --no-annotate --no-header --no-emit-package litellm-collections-crawler \
  --extra postgres --extra telemetry pyproject.toml requirements.in

lock: ## Resolve both locks anew (the newest versions that pyproject.toml allows); the image's is a part of the other
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet uv
	$(LOCK) --upgrade --group dev --output-file requirements.lock
	$(LOCK) --constraint requirements.lock --output-file requirements-image.lock

clean: ## Remove the environment and the caches (documents stay: they are in the data directory)
	rm -rf $(VENV) .venv-lock .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist

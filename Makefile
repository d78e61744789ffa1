# `make` prints help. Every target makes what it needs first: a fresh machine needs no other step.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
PYTHON := $(VENV)/bin/python
BASE_PYTHON ?= python3
# Two for each core, because tests wait for time-outs and servers half of the time. A file's tests stay
# together (loadfile below): what they share is started once. Files begin in the order of tests/conftest.py.
WORKERS ?= 4
# Tests start hundreds of processes: what a machine's settings forbid to keep would be compiled in each.
unexport PYTHONDONTWRITEBYTECODE
NODE_CLIENTS := tests/sdks/node
LANGCHAIN := tests/sdks/langchain
TYPESCRIPT_CLIENT := clients/typescript
# A version that was published in the last days is not taken: most that turn out to be somebody's attack are gone by then.
LOCK := --quiet --universal --python-version 3.11 --exclude-newer "7 days" --generate-hashes --no-annotate --no-header
CLIENTS := $(NODE_CLIENTS)/node_modules/.package-lock.json $(LANGCHAIN)/.venv/installed $(TYPESCRIPT_CLIENT)/dist/index.js

.PHONY: help run test torture check lint fmt docs db lock chart release screenshots gallery bench bench-ledger bench-pages bench-sums bench-path bench-logins bench-peers

help: ## Print this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(VENV)/runtime: requirements.txt
	@$(BASE_PYTHON) -m sandbox.prepare $(VENV) requirements.txt

$(VENV)/dev: $(VENV)/runtime requirements-dev.txt
	@$(BASE_PYTHON) -m sandbox.prepare $(VENV) requirements-dev.txt --stamp dev

# Clients that are not in Python, or want other versions of packages than we do.
%/node_modules/.package-lock.json: %/package-lock.json
	@tests/install-servers
	@npm ci --prefix $* --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

$(TYPESCRIPT_CLIENT)/dist/index.js: $(TYPESCRIPT_CLIENT)/node_modules/.package-lock.json $(wildcard $(TYPESCRIPT_CLIENT)/src/*.ts) $(TYPESCRIPT_CLIENT)/tsconfig.json
	@rm -rf $(@D)
	@$(TYPESCRIPT_CLIENT)/node_modules/.bin/tsc --project $(TYPESCRIPT_CLIENT)

$(LANGCHAIN)/.venv/installed: $(LANGCHAIN)/requirements.txt
	@test -x $(@D)/bin/python || $(BASE_PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

run: ## Start everything: database, server, background service (and a stand-in for OpenRouter if no key is set)
	@$(BASE_PYTHON) -m sandbox.prepare $(VENV) requirements.txt --for-run
	@$(PYTHON) -m sandbox.launch

test: $(VENV)/dev $(CLIENTS) ## Run the whole test suite on SQLite and MariaDB, and what depends on the engine on MySQL
	@tests/install-servers
	@$(PYTHON) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

torture: $(VENV)/dev ## Try many examples, kill the key rotation at every point, databases for long, soak the ledger on every engine, and be one bad caller (takes hours)
	@tests/install-servers
	@EXAMPLES=many $(PYTHON) -m pytest -m "torture or hypothesis"
	@$(PYTHON) -m tests.rotation_torture
	@$(PYTHON) -m tests.money_soak
	@$(PYTHON) -m bench.isolation

lint: $(VENV)/dev ## Check format, lint, types, what imports what, and the links of the documents
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports --no-cache
	@NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --site-dir .cache/site

fmt: $(VENV)/dev ## Format the code and fix what can be fixed
	@$(VENV)/bin/ruff format .
	@$(VENV)/bin/ruff check --fix .

check: lint test ## Format, lint, types and tests: what continuous integration runs

docs: $(VENV)/dev ## Build the documents as a site, into site/; dead links and anchors are errors
	@NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build
	@echo "site/index.html"

db: $(VENV)/runtime ## Bring the configured database to the newest schema
	@$(VENV)/bin/flask --app app db upgrade

screenshots: $(VENV)/dev ## Take the pictures of the README again, from pages in a browser
	@SCREENSHOTS_FOLDER=$(CURDIR)/docs/screenshots $(PYTHON) -m pytest -q tests/web/pages/test_screenshots.py

gallery: $(VENV)/dev ## Take a picture of every page in all widths, schemes and languages, to look at, into .cache/gallery
	@mkdir -p .cache/gallery
	@GALLERY_FOLDER=$(CURDIR)/.cache/gallery $(PYTHON) -m pytest -q -o timeout=0 tests/web/pages/test_every_page.py

bench: $(VENV)/dev ## Measure the gateway beside direct calls (takes some minutes)
	@$(PYTHON) -m bench.gateway

bench-ledger: $(VENV)/dev ## Measure the ledger and its log at ten million rows (takes half an hour and 15 GB of disk)
	@tests/install-servers
	@$(PYTHON) -m bench.ledger

bench-sums: $(VENV)/dev ## Measure pages of latency and of who spent what at 10^7 calls
	@$(PYTHON) -m bench.sums

bench-pages: $(VENV)/dev ## Measure pages at ten million requests in the log (takes a quarter of an hour and 10 GB of disk)
	@tests/install-servers
	@$(PYTHON) -m bench.pages

bench-path: $(VENV)/dev ## Compare what one call takes of the interpreter, step by step, with what is written down (takes seconds)
	@$(PYTHON) -m bench.path_cost --steps 2>/dev/null

bench-peers: $(VENV)/dev ## Compare gateways side by side: this one, nginx, and those that are installed (takes some minutes)
	@$(PYTHON) -m bench.side_by_side

bench-logins: $(VENV)/dev ## Compare failed log-ins of unknown and of known names: answers and times (takes about a minute)
	@$(PYTHON) -m bench.logins

chart: $(VENV)/dev ## Check the Helm chart with Helm, which is built first where it is missing and Go is there
	@tests/install-helm
	@$(PYTHON) -m pytest tests/deploy/test_chart.py

release: $(VENV)/dev ## Build the version of config/version.py into dist/: wheel, source, image context, bill of materials, checksums
	@$(PYTHON) deploy/release.py

lock: $(VENV)/dev ## Rewrite all requirements*.txt with current versions and hashes
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check uv
	@$(VENV)/bin/uv pip compile $(LOCK) -o requirements.txt requirements.in
	@$(VENV)/bin/uv pip compile $(LOCK) -o requirements-traces.txt requirements-traces.in
	@$(VENV)/bin/uv pip compile $(LOCK) -o requirements-dev.txt requirements-dev.in
	@$(VENV)/bin/uv pip compile $(LOCK) -o $(LANGCHAIN)/requirements.txt $(LANGCHAIN)/requirements.in

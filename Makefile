# serve: chat page and API of the shipped reasoner.   test: everything CI runs.
# clients: the server against the client libraries people use (docs/clients.md); installs them.
PYTHON ?= python3
PIP = .venv/bin/python -m pip --disable-pip-version-check -q
PORT ?= 8765

.PHONY: serve page test clients lint bench clean

serve: .venv/ready page
	.venv/bin/ingle serve --port $(PORT)

# web/ is what people edit, ingle/server/static its checked copy, which is committed
page:
	@if command -v node >/dev/null; then node web/build.mjs; \
	else echo "No Node: the chat page is served as it was committed."; fi

# Attacks on the seal fork at every turn, which a process that has trained models does slowly: the
# tests of privacy have one of their own.
FAST = .venv/bin/python -m pytest -m "not slow and not nightly"
# only files that have some: to collect all others takes half a minute
SLOW = $(shell grep -rl --include='test_*.py' mark.slow tests)
test: .venv/dev lint
	$(FAST) tests/privacy
	$(FAST) --ignore=tests/privacy
	.venv/bin/python -m pytest -m "slow and not nightly" $(SLOW)

clients: .venv/clients
	@if command -v npm >/dev/null; then cd tests/clients/node && npm ci --loglevel=error; \
	else echo "No npm: the clients for Node are left out."; fi
	.venv/bin/python -m pytest tests/clients -rs

lint: .venv/dev
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy

bench: .venv/dev
	.venv/bin/python bench/kernels.py
	.venv/bin/python bench/serve_vs_transformers.py

# torch first and alone: the later installs then find its requirement met
.venv/ready: pyproject.toml CMakeLists.txt constraints.txt $(wildcard ingle/kernels/native/*.cpp ingle/kernels/native/*.h ingle/kernels/native/flags.txt)
	@echo "Installing into .venv (the first time takes a minute or two) ..."
	$(PYTHON) -m venv .venv
	$(PIP) install -c constraints.txt torch
	$(PIP) install -c constraints.txt -e .
	@touch $@

.venv/dev: .venv/ready
	$(PIP) install -c constraints.txt -e ".[dev]"
	@touch $@

.venv/clients: .venv/dev
	$(PIP) install -c constraints.txt -e ".[dev,clients]"
	@touch $@

clean:
	rm -rf .venv build out

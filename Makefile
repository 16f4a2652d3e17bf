# serve: chat page and API of the shipped reasoner.   test: everything CI runs.
PYTHON ?= python3
PIP = .venv/bin/python -m pip --disable-pip-version-check -q
PORT ?= 8765

.PHONY: serve page test lint bench clean

serve: .venv/ready page
	.venv/bin/ingle serve --port $(PORT)

# web/ is what people edit, ingle/server/static its checked copy, which is committed
page:
	@if command -v node >/dev/null; then node web/build.mjs; \
	else echo "No Node: the chat page is served as it was committed."; fi

test: .venv/dev lint
	.venv/bin/python -m pytest -m "not slow"
	.venv/bin/python -m pytest -m slow

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

clean:
	rm -rf .venv build out

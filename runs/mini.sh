#!/usr/bin/env bash
# The shipped reasoner from nothing: two stages, then its accuracy. Interrupt and run again: each
# stage goes on from its last checkpoint.
set -euo pipefail
cd "$(dirname "$0")/.."
PRESET=${1:-mini}
PYTHON=${PYTHON:-.venv/bin/python}

"$PYTHON" -m ingle train "$PRESET"
"$PYTHON" -m ingle sft "$PRESET"
"$PYTHON" -m ingle eval "out/$PRESET-sft"

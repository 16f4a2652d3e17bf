#!/usr/bin/env bash
# R1's stages after the cold start (arXiv 2501.12948, section 2.3), from a fine-tuned model:
#   reinforcement learning, rejection sampling, a second fine-tuning, reinforcement on everything:
#   all tasks, all levels.
#   runs/r1.sh [MODEL]     default: the shipped reasoner; STEPS and PROBLEMS make it longer or shorter
# Interrupt and run again: each stage goes on from its last checkpoint.
set -euo pipefail
cd "$(dirname "$0")/.."
START=${1:-reasoner}
STEPS=${STEPS:-200}
PROBLEMS=${PROBLEMS:-4000}
OUT=${OUT:-out/r1}
PYTHON=${PYTHON:-.venv/bin/python}
mkdir -p "$OUT"

"$PYTHON" -m ingle grpo "$START" --steps "$STEPS" --task all --levels 3,4 \
  --out "$OUT/rl"
"$PYTHON" -m ingle distill traces --teacher "$OUT/rl" --levels 1,2,3,4 \
  -n "$PROBLEMS" --samples 8 --out "$OUT/traces.jsonl"
"$PYTHON" -m ingle sft "$START" --data "$OUT/traces.jsonl" --length 512 --out "$OUT/sft"
"$PYTHON" -m ingle grpo "$OUT/sft" --steps "$STEPS" --task all \
  --levels 1,2,3,4,5 --out "$OUT/all"
exam=(--levels 4 --samples 16 --max-tokens 512 -n "${EVAL:-25}")
for model in "$OUT/rl" "$OUT/sft"; do
  echo "== $model"
  "$PYTHON" -m ingle eval "$model" "${exam[@]}"
done
echo "== $OUT/all, and $START before it"
"$PYTHON" -m ingle eval "$OUT/all" --against "$START" "${exam[@]}"

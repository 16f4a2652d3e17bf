"""One self-contained HTML page per run, drawn from `metrics.jsonl`: no script, no external file."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

_CURVES = {
    "loss": "Loss of the next token (nats)",
    "mtp_loss": "Loss of the MTP module (nats)",
    "max_violation": "MaxVio: busiest expert over the mean, minus 1",
    "dead_experts": "Experts that received no token",
    "grad_norm": "Gradient norm before clipping",
    "lr": "Learning-rate factor",
}
_STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;
color:#1d2330;background:#fbfaf7}h1,h2{font-weight:600}h2{font-size:1rem;margin:2rem 0 .3rem}
svg{width:100%;height:auto;background:#fff;border:1px solid #e4e0d8;border-radius:6px}
table{border-collapse:collapse}td,th{padding:.2rem .8rem .2rem 0;text-align:left}
pre{overflow:auto;background:#fff;border:1px solid #e4e0d8;padding:1rem;border-radius:6px}
@media(prefers-color-scheme:dark){body{color:#e8e4da;background:#16181d}
svg,pre{background:#1d2027;border-color:#333845}}"""


def write_report(folder: Path) -> Path:
    """Read `folder/metrics.jsonl` and write `folder/report.html`."""
    lines = [json.loads(x) for x in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    head: dict[str, Any] = next(
        (x for x in lines if "config" in x), {"run": folder.name, "config": {}}
    )
    steps = [x for x in lines if "step" in x]
    parts = [f"<h1>{html.escape(head['run'])}</h1>", _summary(steps)]
    for key, title in _CURVES.items():
        points = [(x["step"], x[key]) for x in steps if key in x]
        parts.append(f"<h2>{html.escape(title)}</h2>{_curve(points)}")
    config = html.escape(json.dumps(head["config"], indent=2))
    parts.append(f"<h2>Configuration</h2><pre>{config}</pre>")
    page = (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(head['run'])}"
        f"</title><style>{_STYLE}</style><body>{''.join(parts)}</body></html>\n"
    )
    out = folder / "report.html"
    out.write_text(page, "utf-8")
    return out


def _summary(steps: list[dict]) -> str:
    if not steps:
        return "<p>No step yet.</p>"
    seconds = sum(x["seconds"] for x in steps)
    tail = steps[-50:]
    rows = {
        "steps": f"{steps[-1]['step'] + 1:,}",
        "time": f"{seconds / 60:.1f} minutes of steps",
        "trained tokens": f"{sum(x['trained_tokens'] for x in steps):,}",
        "loss, last 50 steps": f"{sum(x['loss'] for x in tail) / len(tail):.4f}",
        "MaxVio, last 50 steps": f"{sum(x['max_violation'] for x in tail) / len(tail):.2f}",
    }
    cells = "".join(f"<tr><th>{k}<td>{v}" for k, v in rows.items())
    return f"<table>{cells}</table>"


def _curve(points: list[tuple[int, float]], width: int = 900, height: int = 220) -> str:
    """An SVG line through at most 400 bucket means, with its extremes written beside it."""
    if len(points) < 2:
        return "<p>Not enough points yet.</p>"
    size = -(-len(points) // 400)
    means = [
        (chunk[0][0], sum(y for _, y in chunk) / len(chunk))
        for chunk in (points[i : i + size] for i in range(0, len(points), size))
    ]
    low, high = min(y for _, y in means), max(y for _, y in means)
    span, last = (high - low) or 1.0, points[-1][0] or 1
    path = " ".join(
        f"{60 + x / last * (width - 75):.1f},{height - 20 - (y - low) / span * (height - 40):.1f}"
        for x, y in means
    )
    label = '<text x="4" y="{y}" font-size="12" fill="currentColor">{value:.3g}</text>'
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img">'
        f"{label.format(y=24, value=high)}{label.format(y=height - 18, value=low)}"
        f'<text x="{width - 60}" y="{height - 4}" font-size="12" fill="currentColor">{last:,}'
        f'</text><polyline points="{path}" fill="none" stroke="#c4572e" stroke-width="1.5"/></svg>'
    )

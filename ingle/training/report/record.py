"""Keeping an evaluation with the run it is of: `evaluation.json`, the page and the card."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ingle.privacy.statement import write_bytes
from ingle.training.evaluation.comparison import FILE
from ingle.training.report.card import CARD, MARK, card
from ingle.training.report.history import METRICS
from ingle.training.report.page import write_report


def record(folder: Path, evaluation: Mapping[str, Any]) -> list[Path]:
    """Write what a folder holds of its evaluation; the files that were written.

    The page is written where there are metrics. A README.md that ingle did not write is left.
    """
    written = [folder / FILE]
    write_bytes(written[0], (folded(evaluation) + "\n").encode())
    if _is_ours(folder / CARD):
        write_bytes(folder / CARD, card(folder, evaluation).encode())
        written.append(folder / CARD)
    if (folder / METRICS).is_file():
        written.append(write_report(folder))
    return written


def folded(value: Any) -> str:
    """Indented JSON with each list of numbers on one line; no string holds a bare line break."""
    text = json.dumps(value, indent=2)
    return re.sub(r"\[\n[-+.\deE,\s]+\]", lambda found: " ".join(found[0].split()), text)


def _is_ours(file: Path) -> bool:
    return not file.exists() or file.read_text("utf-8", errors="replace").startswith(MARK)

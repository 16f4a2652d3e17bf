"""What a run says while it goes: how long it will still take."""

from __future__ import annotations

from pathlib import Path

from ingle.training.data import Mixture
from ingle.training.loop import Run
from ingle.training.metrics import MetricsLog
from ingle.training.presets import model_preset

RUN = Run("t", model_preset("nano"), Mixture({"sums": 1.0}, chat=False), steps=200)


def test_time_left_is_that_of_usual_steps(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, RUN, 0)
    assert log.left(88.0, 199) == "199 steps left"  # compiled; 292 minutes would be wrong
    assert log.left(3.0, 198) == "10 min left"
    assert log.left(3.0, 197) == "10 min left"
    assert log.left(60.0, 160) == "8 min left"  # a checkpoint was written
    for _ in range(20):
        log.left(6.0, 100)
    assert log.left(6.0, 100) == "10 min left"  # another machine now


def test_a_resumed_run_compiles_anew(tmp_path: Path) -> None:
    MetricsLog(tmp_path, RUN, 0).write({"step": 0, "seconds": 3.0})
    assert MetricsLog(tmp_path, RUN, 1).left(70.0, 150) == "150 steps left"

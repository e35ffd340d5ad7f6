"""The report (stub until the real one is merged)."""

from __future__ import annotations

import json
from pathlib import Path

from ganrt_training.evaluation.result import Evaluation


def table(evaluation: Evaluation) -> str:
    return "\n".join(
        f"{figure.title:<36}{figure.generated:10.4f}{'' if figure.real is None else f'{figure.real:10.4f}'}"
        for figure in evaluation.figures
    )


def write_evaluation(evaluation: Evaluation, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "evaluation.json").write_text(json.dumps(evaluation.to_json(), indent=1), encoding="utf-8")
    return folder / "evaluation.json"

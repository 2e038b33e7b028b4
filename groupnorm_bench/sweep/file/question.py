"""The question of a sweep, in a file of its own beside it: `norm.question.yaml` for `norm.yaml`.

W&B's own tools warn of a key that they do not know, and refuse a second YAML document; beside the
sweep file the question is out of their way.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from groupnorm_bench.compare.question import Question
from groupnorm_bench.errors import CompareError, ConfigError, SweepError
from groupnorm_bench.settings.yamlfile import read_yaml

_SUFFIX = ".question.yaml"


def question_path(sweep_file: Path) -> Path:
    """Return where the question of a sweep file lies."""
    return sweep_file.with_name(sweep_file.stem + _SUFFIX)


def read_question(sweep_file: Path) -> Question | None:
    """Return a sweep's question, or None where it has none.

    Raises:
        SweepError: the file is not readable, or makes no sense; with its line.
    """
    path = question_path(sweep_file)
    if not os.path.lexists(path):
        return None
    try:
        document = read_yaml(path)
    except ConfigError as error:
        raise SweepError(str(error)) from error
    try:
        question = Question.from_mapping(document.data)
    except CompareError as error:
        key = re.match(r"(?:unknown key ')?(\w+)", str(error))
        where = document.where(key.group(1)) if key else str(path)
        raise SweepError(f"{where} {error}") from error
    if question.max_seeds is not None and question.max_seeds < question.first_look:
        raise SweepError(
            f"{document.where('max_seeds')} max_seeds={question.max_seeds} is less than "
            f"first_look={question.first_look}, so nothing is ever decided; raise it"
        )
    return question

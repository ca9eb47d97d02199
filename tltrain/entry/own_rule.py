"""`stage.rule=NAME` for a rule of the user's own: the choice of it that Hydra knows."""

from __future__ import annotations

from collections.abc import Sequence

from tltrain.config import MaeRule
from tltrain.entry import usage


def expanded(words: Sequence[str]) -> list[str]:
    """Return a command line with `stage.rule=NAME` as `mae@mae.strict=NAME stage.rule=strict`.

    Only where a folder of the user's, of `--config-dir` or an installed package, has `mae/NAME.yaml`: that rule takes
    the place of the strict one.
    """
    found: list[str] = []
    for word in words:
        key, _, name = word.partition("=")
        if key.lstrip("+") == "stage.rule" and name.isidentifier() and name not in MaeRule.__members__:
            files = [folder / "mae" / f"{name}.yaml" for folder in usage.own_folders(words)]
            if any(file.is_file() for file in files):
                found += [f"mae@mae.strict={name}", "stage.rule=strict"]
                continue
        found.append(word)
    return found

"""The configured rules for which tool answers are errors: a table of patterns, or a user's own function."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from tltrain import config
from tltrain.errors import TltrainError, shorten
from tltrain.formats.tool_errors import Rule
from tltrain.runtime import targets


def named_rule(cfg: DictConfig, name: str) -> Rule:
    """Return the rule `paper` or `strict` as composed from `conf/mae/` and the command line.

    A rule that names a function by `_target_` calls it with `(answer, is_error)` and gets the kind of error, or None.

    Raises:
        TltrainError: there is no such function, or a key of the rule is wrong.
    """
    node, where = cfg.mae[name], f"mae.{name}"
    if node.get(targets.TARGET) is None:
        return Rule.from_config(config.plain(node))
    bound = targets.bound(node, targets.named(node, {}, where), where)
    return Rule("function", (), partial(_kind, bound, str(node[targets.TARGET])))


def rule_name(cfg: DictConfig, name: str | None = None) -> str:
    """Return the name of a rule, by default of the one that `stage.rule` chooses; of a user's own that of its file.

    Hydra knows a user's own rule as the choice in place of the strict one (`entry.own_rule`).
    """
    name = name or str(cfg.stage.rule.name)
    if not HydraConfig.initialized():
        return name
    return str(HydraConfig.get().runtime.choices.get(f"mae@mae.{name}") or name)


def _kind(bound: Callable[..., Any], target: str, answer: str, is_error: bool | None) -> str | None:
    with targets.explained(f"mae rule {target}, the answer {shorten(answer)!r}"):
        found = bound(answer=answer, is_error=is_error)
    if found is not None and not (isinstance(found, str) and found):
        raise TltrainError(f"mae rule {target}: expected the kind of error as a word, or None, found {found!r}")
    return found

"""Secrets (API keys, access tokens, passwords) are kept out of configuration files, logs, errors and trackers.

Two things count as secret: the value of an environment variable whose name says so (`WANDB_API_KEY`, `HF_TOKEN`,
`AWS_SECRET_ACCESS_KEY`), wherever it stands, and the value of a configuration key whose name says so (`api_key`,
`hub_token`, `password`). A tokenizer's token (`pad_token`, `max_new_tokens`) is not a secret.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

MASK = "<masked>"  # a plain word in YAML
SHORTEST = 8  # characters; a shorter value would occur in ordinary words
_WORDS = r"api_?key|access_?key|private_?key|passw(or)?d|passphrase|secrets?|credentials?"
_VARIABLE = re.compile(rf"(^|_)({_WORDS}|key|token|pat)(_|$)", re.IGNORECASE)
_KEY = re.compile(
    rf"(^|_)({_WORDS})(_|$)|(^|(access|api|auth|bearer|hf|hub|id|refresh|session|wandb)_)token$", re.IGNORECASE
)


def text(words: str) -> str:
    """The text with the values of secret environment variables masked."""
    for value in _of_environment():
        words = words.replace(value, MASK)
    return words


def config(cfg: DictConfig) -> dict[str, Any]:
    """The configuration resolved, as plain containers (enumerations by name), with secrets masked."""
    return _masked(OmegaConf.to_container(cfg, resolve=True, enum_to_str=True))


def hydra_files(cfg: DictConfig, folder: Path) -> None:
    """Mask secrets in Hydra's record of the run, `folder/.hydra/`, which Hydra writes before our code runs."""
    values = sorted(_of_keys(OmegaConf.to_container(cfg)), key=len, reverse=True)
    for file in folder.glob(".hydra/*.yaml"):
        found = file.read_text(encoding="utf-8")
        masked = text(found)
        for value in values:
            masked = masked.replace(value, MASK)
        if masked != found:
            file.write_text(masked, encoding="utf-8")


class Filter(logging.Filter):
    """Masks secrets in the messages of a log's handler."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if (masked := text(message)) != message:
            record.msg, record.args = masked, ()
        return True


def _of_environment() -> list[str]:
    found = {value for name, value in os.environ.items() if _VARIABLE.search(name) and len(value) >= SHORTEST}
    return sorted(found, key=len, reverse=True)  # a value that contains another comes first


def _masked(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: MASK if _is_secret(key, value) else _masked(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_masked(value) for value in node]
    return text(node) if isinstance(node, str) else node


def _is_secret(key: Any, value: Any) -> bool:
    """A key that ends in `_env` holds the name of a variable, not its value."""
    named = str(key).endswith("_env")
    return isinstance(value, str) and bool(value) and not named and bool(_KEY.search(str(key)))


def _of_keys(node: Any) -> Iterator[str]:
    """Literal values of secret keys; `${oc.env:...}` is the name of one."""
    if isinstance(node, dict):
        for key, value in node.items():
            if _is_secret(key, value):
                if not value.startswith("${"):
                    yield value
            else:
                yield from _of_keys(value)
    elif isinstance(node, list):
        for value in node:
            yield from _of_keys(value)

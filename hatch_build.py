"""The parts of the packages' metadata that depend on where the repository is: addresses, and the description on PyPI.

On PyPI a relative link of README.md would lead nowhere, and its pictures would be missing. GitHub's workflows say where
the repository is (`GITHUB_SERVER_URL`, `GITHUB_REPOSITORY`); links then lead to the version's tag there. Elsewhere they
are left out, and their words stay.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from os import environ
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface

PAPER = "https://arxiv.org/abs/2412.15495"
_LINK = re.compile(r"(?P<picture>!?)\[(?P<words>(?:[^\[\]]|\[[^\[\]]*\])*)\]\((?P<target>[^()\s]+)\)")


class Metadata(MetadataHookInterface):
    """Sets `project.readme` and `project.urls`."""

    def update(self, metadata: dict) -> None:
        """Add both to the metadata of pyproject.toml."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        address = repository(environ)
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": description(text, address, f"v{metadata['version']}"),
        }
        metadata["urls"] = urls(address)


def repository(variables: Mapping[str, str]) -> str | None:
    """Return the address of the repository in a workflow of GitHub; None elsewhere."""
    server, name = variables.get("GITHUB_SERVER_URL"), variables.get("GITHUB_REPOSITORY")
    return f"{server}/{name}" if server and name else None


def urls(address: str | None) -> dict[str, str]:
    """Return the links beside a package's description."""
    if address is None:
        return {"Paper": PAPER}
    return {
        "Source": address,
        "Documentation": f"{address}/blob/HEAD/docs/index.md",
        "Changelog": f"{address}/blob/HEAD/CHANGELOG.md",
        "Issues": f"{address}/issues",
        "Paper": PAPER,
    }


def description(text: str, address: str | None, tag: str) -> str:
    """Return a page of the repository with relative links and pictures made absolute, or left out without `address`."""

    def link(found: re.Match[str]) -> str:
        picture, words, target = found["picture"], found["words"], found["target"]
        if "://" in target or target.startswith(("#", "mailto:")):
            return found[0]
        if address is None:
            return f"*{words}*" if picture else words
        kind = "raw" if picture else "tree" if target.endswith("/") else "blob"
        return f"{picture}[{words}]({address}/{kind}/{tag}/{target})"

    return _LINK.sub(link, text)

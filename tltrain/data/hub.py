"""Datasets of the Hugging Face hub as files: `hf://datasets/OWNER/NAME[@REVISION][/FILE or FOLDER]`.

`huggingface_hub` downloads the files into its own cache; they are then read like local files.
"""

from __future__ import annotations

import logging
import re

from tltrain.errors import TltrainError

log = logging.getLogger(__name__)

PREFIX = "hf://"
_PATH = re.compile(r"hf://datasets/(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w.%-]+))?(?:/(?P<inside>[^?#]+))?")


def is_dataset(path: object) -> bool:
    """Return whether a path names a dataset on the hub."""
    return isinstance(path, str) and path.startswith(PREFIX)


def downloaded(path: str) -> str:
    """Return the local file or folder to which a hub path was downloaded.

    Raises:
        TltrainError: the path names no dataset, the hub cannot be reached, or there is no such dataset.
    """
    import huggingface_hub

    found = _PATH.fullmatch(path.rstrip("/"))
    if found is None or ".." in path.split("/"):
        raise TltrainError(f"{path}: expected hf://datasets/OWNER/NAME, optionally followed by @REVISION or /FILE")
    inside, revision = found["inside"], found["revision"]
    if revision is None:
        log.warning("%s: without @REVISION after the name, a repeated run may read different data", path)
    patterns = [inside, f"{inside}/*"] if inside else None
    try:
        folder = huggingface_hub.snapshot_download(
            found["repo"], repo_type="dataset", revision=revision, allow_patterns=patterns
        )
    except (huggingface_hub.errors.HfHubHTTPError, OSError, ValueError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise TltrainError(
            f"{path}: cannot be downloaded, {first}; data.path=FOLDER reads a copy on this machine"
        ) from None
    return f"{folder}/{inside}" if inside else folder

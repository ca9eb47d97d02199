"""Push a model's folder to a hub (huggingface.co, or that of `HF_ENDPOINT`). Nothing is sent without `stage.hub`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from tltrain.errors import TltrainError, shorten
from tltrain.runtime import redact

NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
LOGIN = "set the environment variable HF_TOKEN, or run `hf auth login`"


def check_name(repo: str) -> None:
    """Raise a TltrainError unless `repo` is a repository's name."""
    if not NAME.fullmatch(repo):
        raise TltrainError(f"stage.hub={repo}: expected OWNER/NAME, such as me/tools-0.6b")


def check(repo: str, private: bool) -> None:
    """Check before any work that the hub can be reached, knows who is asking, and has no public repository there.

    Raises:
        TltrainError: it cannot, does not, or has one although `private` is asked for.
    """
    from huggingface_hub.errors import RepositoryNotFoundError

    api = _api()
    _asked(repo, lambda: api.whoami())
    try:
        found = api.repo_info(repo)
    except RepositoryNotFoundError:
        return
    except Exception as error:
        raise _failed(repo, error) from error
    if private and not found.private:
        raise TltrainError(
            f"stage.hub={repo}: that repository is public; stage.private=false pushes to it, another name makes a "
            "private one"
        )


def push(folder: Path, repo: str, private: bool) -> str:
    """Upload a model's folder in one commit, and return the commit's address.

    Raises:
        TltrainError: the hub refuses, or the repository is public although `private` is asked for.
    """
    api = _api()
    _asked(repo, lambda: api.create_repo(repo, private=private, exist_ok=True))
    if private and not _asked(repo, lambda: api.repo_info(repo)).private:  # somebody else may have made it meanwhile
        raise TltrainError(f"stage.hub={repo}: the repository is public, so nothing was pushed; stage.private=false")
    message = "Upload a model trained by tltrain"
    done = _asked(repo, lambda: api.upload_folder(repo_id=repo, folder_path=folder, commit_message=message))
    return str(done.commit_url)


def _api() -> Any:
    """The client of the hub.

    Raises:
        TltrainError: there is no token, or the hub is switched off.
    """
    from huggingface_hub import HfApi, constants, get_token
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if constants.HF_HUB_OFFLINE:
        raise TltrainError("stage.hub: HF_HUB_OFFLINE is set, so nothing can be pushed: unset it")
    if (token := get_token()) is None:
        raise TltrainError(f"stage.hub needs a token of the hub: {LOGIN}")
    redact.learn(token)
    disable_progress_bars()
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, token=token, library_name="tltrain")


def _asked(repo: str, ask: Any) -> Any:
    try:
        return ask()
    except Exception as error:  # from whichever HTTP library the client uses
        raise _failed(repo, error) from error


def _failed(repo: str, error: Exception) -> TltrainError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    said = shorten(redact.text(str(error)), 300)
    if status == 401:
        return TltrainError(f"stage.hub={repo}: the hub does not accept the token: {LOGIN} ({said})")
    if status == 403:
        return TltrainError(f"stage.hub={repo}: the token may not write there: make one with write access ({said})")
    return TltrainError(f"stage.hub={repo}: {said or type(error).__name__}")

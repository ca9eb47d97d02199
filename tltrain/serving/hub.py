"""Push a model's folder to a hub (huggingface.co, or that of `HF_ENDPOINT`). Nothing is sent without `stage.hub`."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from tltrain.errors import TltrainError, shorten
from tltrain.runtime import redact

log = logging.getLogger(__name__)

NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
LOGIN = "set the environment variable HF_TOKEN, or run `hf auth login`"

OURS = "tltrain.json"
"""A file of every model that was trained here."""
BY_HAND = {".gitattributes", "README.md", "LICENSE"}
"""Files of a repository that was made on the hub's site and is still empty."""
OF_A_PUSH = (
    *("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin", "pytorch_model.bin.index.json"),
    *("adapter_config.json", "adapter_model.bin", "*.gguf", "Modelfile"),
)
"""Weights and what goes with them: those of an earlier push would be taken for the model's, so they are removed."""


def check_name(repo: str) -> None:
    """Raise a TltrainError unless `repo` is a repository's name."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    expected = f"stage.hub={repo}: expected OWNER/NAME, such as me/tools-0.6b"
    if not NAME.fullmatch(repo):
        raise TltrainError(expected)
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise TltrainError(f"{expected} ({error})") from error


def check(repo: str, private: bool, overwrite: bool) -> None:
    """Check before any work that the hub can be reached, that the token may write there, and what is there already.

    Args:
        private: refuse a public repository. overwrite: add a commit also to a repository that was not pushed from here.

    Raises:
        TltrainError: the hub cannot be reached, or refuses, or has a repository there that is not to be written to.
    """
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    api = _api()
    if (why := may_not_write(_asked(repo, lambda: api.whoami()), repo)) is not None:
        raise TltrainError(f"stage.hub={repo}: {why}")
    try:
        found = api.repo_info(repo)
    except GatedRepoError as error:  # a kind of RepositoryNotFoundError, but the repository is there
        raise failure(repo, error) from error
    except RepositoryNotFoundError:
        return
    except Exception as error:
        raise failure(repo, error) from error
    if private and not found.private:
        raise TltrainError(
            f"stage.hub={repo}: that repository is public; stage.private=false pushes to it, another name makes a "
            "private one"
        )
    names = files_of(found)
    if names - BY_HAND and OURS not in names and not overwrite:
        raise TltrainError(
            f"stage.hub={repo}: that repository has {len(names)} files and no {OURS}, so it is not ours; another name "
            "makes a new one, overwrite=true adds a commit to this one"
        )
    if OURS in names:
        log.info("hub: %s is there already and gets another commit; weights of an earlier push are replaced", repo)


def may_not_write(user: Mapping[str, Any], repo: str) -> str | None:
    """Return why a token cannot write to a repository, from what the hub says about it; None if nothing speaks against.

    Args:
        user: the answer of `whoami`: `name`, `orgs`, and `auth.accessToken` with `role` (read, write or fineGrained).
    """
    owner = repo.partition("/")[0]
    token = (user.get("auth") or {}).get("accessToken") or {}
    remedy = f"make one with write access, and {LOGIN}"
    if token.get("role") == "read":
        return f"the token may only read: {remedy}"
    if token.get("role") == "fineGrained" and (fine := token.get("fineGrained")):
        allowed = {
            word
            for scope in fine.get("scoped") or ()
            if _covers(scope.get("entity") or {}, repo)
            for word in scope.get("permissions") or ()
        }
        if "repo.write" not in allowed | set(fine.get("global") or ()):
            return f"the token may not write to repositories of {owner}: {remedy}"
    if "name" not in user or "orgs" not in user:
        return None
    orgs = {each.get("name"): each for each in user["orgs"] or ()}
    if owner not in (user["name"], *orgs):
        owners = ", ".join(map(str, (user["name"], *orgs)))
        return f"the token is of {user['name']}, expected one of {owners} before the slash"
    member = orgs.get(owner, {})
    if member.get("roleInOrg") == "read" and not member.get("resourceGroups"):
        return f"{user['name']} may only read in {owner}: ask its administrators for the role contributor or write"
    return None


def _covers(entity: Mapping[str, Any], repo: str) -> bool:
    """Return whether rights to an entity may be rights to a model's repository; a resource group may hold any."""
    kind, name = str(entity.get("type")), entity.get("name")
    if kind in ("user", "org"):
        return name == repo.partition("/")[0]
    return name == repo if kind == "model" else kind.startswith("resource")


def files_of(repository: Any) -> set[str]:
    """Return the names of a repository's files, from the hub's answer about it."""
    return {str(each.rfilename) for each in repository.siblings or ()}


def stale(names: Collection[str], folder: Path) -> list[str]:
    """Return a repository's weights that the folder to be pushed does not have."""
    left = (name for name in names if any(fnmatch(name, pattern) for pattern in OF_A_PUSH))
    return sorted(name for name in left if not (folder / name).exists())


def push(folder: Path, repo: str, private: bool) -> tuple[str, bool]:
    """Upload a model's folder in one commit; return the commit's address, and whether the repository is private.

    With `private=False` a repository that is already there keeps its visibility, and an organization may have new ones
    made private.

    Raises:
        TltrainError: the hub refuses, or the repository is public although `private` is asked for.
    """
    api = _api()
    _asked(repo, lambda: api.create_repo(repo, private=private, exist_ok=True))
    found = _asked(repo, lambda: api.repo_info(repo))
    hidden = bool(found.private)
    if private and not hidden:  # somebody else may have made it meanwhile
        raise TltrainError(f"stage.hub={repo}: the repository is public, so nothing was pushed; stage.private=false")
    message = "Upload a model trained by tltrain"
    remove = stale(files_of(found), folder) or None
    done = _asked(
        repo,
        lambda: api.upload_folder(repo_id=repo, folder_path=folder, commit_message=message, delete_patterns=remove),
    )
    return str(done.commit_url), hidden


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
        raise failure(repo, error) from error


def failure(repo: str, error: Exception) -> TltrainError:
    """Return what the hub, or the way to it, did not allow, as one line with the remedy."""
    from huggingface_hub import constants, errors

    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    said = str(error).strip() or type(error).__name__
    if status in (402, 403):  # without the client's own words, which make the token the reason
        said = getattr(error, "server_message", None) or said
    said = shorten(redact.text(said), 300)
    if status == 401:
        return TltrainError(f"stage.hub={repo}: the hub does not accept the token: {LOGIN} ({said})")
    if status in (402, 403):  # no right to write, a full account, an organization that allows no public repository
        return TltrainError(
            f"stage.hub={repo}: the hub refuses: {said}; a token needs write access there, and the account the room"
        )
    if response is None and isinstance(error, errors.HTTPError):  # type: ignore[attr-defined]  # of the HTTP library
        url = os.environ.get("HF_ENDPOINT") or constants.ENDPOINT
        return TltrainError(
            f"stage.hub={repo}: {url} cannot be reached ({said}): check the network and HF_ENDPOINT, or leave "
            "stage.hub out and push later"
        )
    return TltrainError(f"stage.hub={repo}: {said}")

"""What a hub says about a token and a repository, before anything is pushed."""

from __future__ import annotations

import socket
from types import SimpleNamespace

import pytest
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError

from tltrain.errors import TltrainError
from tltrain.serving import hub


def user(**token):
    return {"name": "me", "orgs": [{"name": "acme"}], "auth": {"accessToken": token}}


def scoped(entity, *permissions, type="user"):
    scope = {"entity": {"type": type, "name": entity}, "permissions": list(permissions)}
    return user(role="fineGrained", fineGrained={"global": [], "scoped": [scope]})


def member(role, **more):
    said = user(role="write")
    return said | {"orgs": [{"name": "acme", "roleInOrg": role, **more}]}


@pytest.mark.parametrize(
    ("said", "repo", "why"),
    [
        (user(role="write"), "me/tools", None),
        (user(role="write"), "acme/tools", None),
        (user(role="write"), "other/tools", "the token is of me, expected one of me, acme before the slash"),
        (user(role="read"), "me/tools", "the token may only read: make one with write access"),
        (scoped("me", "repo.content.read", "repo.write"), "me/tools", None),
        (scoped("me/tools", "repo.write", type="model"), "me/tools", None),
        (scoped("me/tools", "repo.write", type="dataset"), "me/tools", "the token may not write to repositories of me"),
        (scoped("acme", "repo.write", type="org"), "acme/tools", None),
        (scoped("research", "repo.write", type="resourceGroup"), "acme/tools", None),  # it may hold the repository
        (scoped("research", "repo.content.read", type="resourceGroup"), "acme/tools", "the token may not write to"),
        (member("write"), "acme/tools", None),
        (member("contributor"), "acme/tools", None),
        (member("read"), "acme/tools", "me may only read in acme: ask its administrators for the role contributor"),
        (member("read"), "me/tools", None),
        (member("read", resourceGroups=[{"name": "research", "role": "write"}]), "acme/tools", None),
        (scoped("me", "repo.content.read"), "me/tools", "the token may not write to repositories of me: make one with"),
        (scoped("acme", "repo.write"), "me/tools", "the token may not write to repositories of me"),
        (user(role="fineGrained"), "me/tools", None),  # a hub that does not say which rights: it will refuse by itself
        ({"name": "me"}, "other/tools", None),
        ({}, "me/tools", None),
    ],
)
def test_a_token_that_may_not_write_is_noticed_early(said, repo, why):
    found = hub.may_not_write(said, repo)
    assert found is None if why is None else found is not None and found.startswith(why)


def test_weights_of_an_earlier_push_do_not_stay_beside_the_new_ones(tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).touch()
    adapter = {"adapter_config.json", "pytorch_model.bin"}  # with the first, the whole model is loaded as an adapter
    names = {"model.safetensors", "model-00001-of-00002.safetensors", "model.safetensors.index.json", "old-q8_0.gguf"}
    assert hub.stale(names | adapter | {"Modelfile", "notes.md", ".gitattributes"}, tmp_path) == [
        "Modelfile",
        "adapter_config.json",
        "model-00001-of-00002.safetensors",
        "model.safetensors.index.json",
        "old-q8_0.gguf",
        "pytorch_model.bin",
    ]


@pytest.mark.parametrize(
    "name", ["tools", "me/a/b", "me/a--b", "me/tools.git", "mé/tools", "me/" + "a" * 97, "me/tools."]
)
def test_a_name_that_no_hub_takes_is_noticed_first(name):
    with pytest.raises(TltrainError, match=r"^stage\.hub=.*: expected OWNER/NAME, such as me/tools-0\.6b"):
        hub.check_name(name)


def refusal(status, said, kind=HfHubHTTPError):
    response = SimpleNamespace(status_code=status, headers={}, request=None)
    return kind(f"\n\n{status} Forbidden: {said}.\nCannot access content.", response=response, server_message=said)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (refusal(401, "Invalid"), "the hub does not accept the token: set the environment variable HF_TOKEN"),
        (
            refusal(403, "Private repository storage limit reached"),
            "the hub refuses: Private repository storage limit ",
        ),
        (refusal(402, "Payment required"), "the hub refuses: Payment required"),
        (refusal(429, "Too many"), "429 Forbidden: Too many."),
        (RuntimeError("the data was not stored"), "the data was not stored"),
        (RuntimeError(), "RuntimeError"),
    ],
)
def test_the_line_says_what_the_hub_said(error, line):
    assert str(hub.failure("me/tools", error)).startswith(f"stage.hub=me/tools: {line}")


def test_a_hub_that_cannot_be_reached_is_named(monkeypatch):
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("HF_ENDPOINT", url)
        monkeypatch.setenv("HF_TOKEN", "hf_tokenOfNobody0123456789")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        with pytest.raises(TltrainError) as caught:
            hub.check("me/tools", private=True, overwrite=False)
    assert str(caught.value).startswith(f"stage.hub=me/tools: {url} cannot be reached (")
    assert str(caught.value).endswith("): check the network and HF_ENDPOINT, or leave stage.hub out and push later")


def test_a_gated_repository_is_not_taken_for_a_missing_one(monkeypatch):
    def repo_info(repo):
        raise refusal(403, "Access to model acme/gated is restricted", GatedRepoError)

    api = SimpleNamespace(whoami=dict, repo_info=repo_info)
    monkeypatch.setattr(hub, "_api", lambda: api)
    with pytest.raises(TltrainError, match="the hub refuses: Access to model acme/gated is restricted"):
        hub.check("acme/gated", private=True, overwrite=False)

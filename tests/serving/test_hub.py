"""What a hub says about a token and a repository, before anything is pushed."""

from __future__ import annotations

import pytest

from tltrain.serving import hub


def user(**token):
    return {"name": "me", "orgs": [{"name": "acme"}], "auth": {"accessToken": token}}


def scoped(entity, *permissions):
    scope = {"entity": {"type": "user", "name": entity}, "permissions": list(permissions)}
    return user(role="fineGrained", fineGrained={"global": [], "scoped": [scope]})


@pytest.mark.parametrize(
    ("said", "repo", "why"),
    [
        (user(role="write"), "me/tools", None),
        (user(role="write"), "acme/tools", None),
        (user(role="write"), "other/tools", "the token is of me, expected one of me, acme before the slash"),
        (user(role="read"), "me/tools", "the token may only read: make one with write access"),
        (scoped("me", "repo.content.read", "repo.write"), "me/tools", None),
        (scoped("me/tools", "repo.write"), "me/tools", None),
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
    names = {"model.safetensors", "model-00001-of-00002.safetensors", "model.safetensors.index.json", "old-q8_0.gguf"}
    assert hub.stale(names | {"Modelfile", "notes.md", ".gitattributes"}, tmp_path) == [
        "Modelfile",
        "model-00001-of-00002.safetensors",
        "model.safetensors.index.json",
        "old-q8_0.gguf",
    ]

"""Where processes find their common secret if none of them started the others."""

from __future__ import annotations

import pytest

from tltrain.errors import TltrainError
from tltrain.runtime import shared_secret


def test_the_first_process_makes_a_file_that_the_others_read(tmp_path):
    home = {"HOME": str(tmp_path)}
    found = shared_secret.of_user(home)
    file = tmp_path / ".config" / "tltrain" / "secret"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in file.parent.iterdir()] == ["secret"]
    assert len(found) == 64
    assert shared_secret.of_user(home) == found


def test_of_several_first_processes_one_makes_it(tmp_path):
    file = tmp_path / "secret"
    shared_secret._make(file)
    text = file.read_text()
    shared_secret._make(file)  # it had looked before the file was there
    assert file.read_text() == text


def test_the_environment_comes_first(tmp_path):
    given = {"XDG_CONFIG_HOME": str(tmp_path), "TLTRAIN_SECRET": "x" * 16}
    assert shared_secret.of_user(given) == "x" * 16
    assert not list(tmp_path.iterdir())


def test_a_short_secret_is_refused(tmp_path):
    with pytest.raises(TltrainError, match="TLTRAIN_SECRET: expected at least 16 characters, found 5"):
        shared_secret.of_user({"TLTRAIN_SECRET": "short"})
    file = shared_secret.file({"XDG_CONFIG_HOME": str(tmp_path)})
    file.parent.mkdir()
    file.touch(mode=0o600)
    with pytest.raises(TltrainError, match="secret: expected at least 16 characters: remove it"):
        shared_secret.of_user({"XDG_CONFIG_HOME": str(tmp_path)})


def test_a_file_that_others_may_read_is_refused(tmp_path):
    given = {"XDG_CONFIG_HOME": str(tmp_path)}
    shared_secret.of_user(given)
    shared_secret.file(given).chmod(0o640)
    with pytest.raises(TltrainError, match=r"must be readable only by you \(mode 0640\): chmod 600 .*TLTRAIN_SECRET"):
        shared_secret.of_user(given)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "tltrain").write_text("")
    with pytest.raises(TltrainError, match=r"cannot be used \(.*\).*set TLTRAIN_SECRET"):
        shared_secret.of_user({"XDG_CONFIG_HOME": str(tmp_path)})

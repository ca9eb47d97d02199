"""What a user's environment class returns is checked as it is used."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from tests.support.environment_samples import Room, tasks
from tltrain.environments import registry
from tltrain.errors import TltrainError
from tltrain.trajectory import Call

LOOK = Call("look", {})


class Rooms:
    def tasks(self):
        return tasks(1)

    def environment(self):
        return Room()

    def golden(self, task):
        return {"t0": [[LOOK]], "flat": [LOOK], "none": None}[task.id]


@pytest.fixture
def golden(monkeypatch):
    monkeypatch.setitem(sys.modules, "rooms_of_users", SimpleNamespace(Rooms=Rooms))
    found = registry.World(OmegaConf.create({"name": "rooms", "_target_": "rooms_of_users.Rooms"})).golden
    assert found is not None
    return found


def test_golden_calls_are_turns_of_calls(golden):
    (task,) = tasks(1)
    assert golden(task) == ([LOOK],)
    assert golden(replace(task, id="none")) == ()  # this task has none


@pytest.mark.parametrize(
    ("identity", "said"),
    [
        ("flat", "golden of flat: expected the calls of each turn of the user (a list of lists of "),
        ("elsewhere", "golden: KeyError: 'elsewhere'"),
    ],
)
def test_what_golden_returns_instead_is_told(golden, identity, said):
    (task,) = tasks(1)
    with pytest.raises(TltrainError, match=re.escape(said)):
        golden(replace(task, id=identity))

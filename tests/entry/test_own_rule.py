"""`stage.rule=NAME` for a rule in the user's own folder."""

from __future__ import annotations

import pytest

from tests.support.paths import ROOT
from tltrain.entry import own_rule, usage

OWN = ("--config-dir", str(ROOT / "examples" / "own_code"))


@pytest.mark.parametrize("word", ["stage.rule=apologies", "+stage.rule=apologies"])
def test_a_rule_of_the_users_takes_the_place_of_the_strict_one(word):
    assert own_rule.expanded([*OWN, "stage=mae", word, "seed=1"]) == [
        *OWN,
        "stage=mae",
        "mae@mae.strict=apologies",
        "stage.rule=strict",
        "seed=1",
    ]


@pytest.mark.parametrize(
    "words",
    [
        ["stage.rule=apologies"],  # no folder has it
        [*OWN, "stage.rule=strict"],
        [*OWN, "stage.rule=sorry"],
        [*OWN, "stage.rule=../reward/cautious"],
        [*OWN, "-m", "stage.rule=paper,apologies"],
        [*OWN, "stage.rule"],
    ],
)
def test_other_words_stay_as_they_are(words):
    assert own_rule.expanded(words) == words


def test_help_lists_it_as_it_is_typed():
    assert "stage.rule=apologies" in usage.text([*OWN, "--help"])

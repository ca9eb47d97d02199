"""What `training/group.py` takes from TRL's trainers without TRL promising it: private names, and what they return.

pyproject.toml pins `trl<1.17` for this reason. A failure here after raising the pin says what to change in group.py.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap

import pytest
import trl
from trl import GRPOTrainer, RLOOTrainer

from tltrain.entry.arguments import LOSS_TYPES
from tltrain.training.group import vllm_stop_tokens

TRAINERS = [GRPOTrainer, RLOOTrainer]
OVERRIDDEN = {
    "_tokenize_prompts": ["self", "prompts"],
    "_generate": ["self", "prompts"],
    "_calculate_rewards": ["self", "inputs", "prompts", "completions", "completion_ids_list"],
}
"""Methods that group.py overrides, with their parameters."""
READ = ("_metrics", "beta", "num_iterations", "eos_token_ids")
"""Attributes that group.py reads or sets, or whose source it relies on."""


def moved(trainer: type, what: str) -> str:
    return f"TRL {trl.__version__}: {trainer.__name__} {what}, on which tltrain/training/group.py relies"


def tree(function) -> ast.AST:
    return ast.parse(textwrap.dedent(inspect.getsource(function)))


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize("name", OVERRIDDEN)
def test_the_methods_that_are_overridden_are_there(trainer, name):
    assert hasattr(trainer, name), moved(trainer, f"has no method {name}")
    found = list(inspect.signature(getattr(trainer, name)).parameters)
    assert found == OVERRIDDEN[name], moved(trainer, f"calls {name} with {found}, not {OVERRIDDEN[name]}")


@pytest.mark.parametrize("trainer", TRAINERS)
def test_the_methods_are_called_where_a_rollout_is_made(trainer):
    assert "self._tokenize_prompts(" in inspect.getsource(trainer._generate), moved(trainer, "tokenizes elsewhere")
    made = inspect.getsource(trainer._generate_and_score_completions)
    for name in ("_generate", "_calculate_rewards"):
        assert f"self.{name}(" in made, moved(trainer, f"does not call {name} for a rollout")


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize("name", READ)
def test_the_attributes_that_are_read_are_set(trainer, name):
    assert re.search(rf"self\.{name}\b.*=", inspect.getsource(trainer.__init__)), moved(trainer, f"sets no {name}")


@pytest.mark.parametrize(
    ("trainer", "order"),
    [(GRPOTrainer, ["prompt_ids", "completion_ids", "tool_mask"]), (RLOOTrainer, ["prompt_ids", "completion_ids"])],
)
def test_a_rollout_begins_with_prompts_responses_and_their_mask(trainer, order):
    returned = [node.value for node in ast.walk(tree(trainer._generate)) if isinstance(node, ast.Return)]
    names = [[getattr(each, "id", "") for each in value.elts] for value in returned if isinstance(value, ast.Tuple)]
    found = [each[: len(order)] for each in names]
    assert found == [order], moved(trainer, f"returns {found} from _generate, not {order}")


@pytest.mark.parametrize("trainer", TRAINERS)
def test_answers_end_with_the_tokens_of_the_generation_configuration(trainer):
    source = inspect.getsource(trainer.__init__)
    assert "eos_token_ids = model.generation_config.eos_token_id" in source, moved(
        trainer, "takes end tokens elsewhere"
    )
    assert '"eos_token_id": self.eos_token_ids' in source, moved(trainer, "does not generate until these tokens")


def test_the_losses_and_levels_are_those_of_trl():
    source = inspect.getsource(GRPOTrainer._compute_loss)
    compared = {
        word
        for node in ast.walk(tree(GRPOTrainer._compute_loss))
        if isinstance(node, ast.Compare) and "loss_type" in ast.unparse(node.left)
        for word in re.findall(r"'(\w+)'", ast.unparse(node.comparators[0]))
    }
    assert compared == set(LOSS_TYPES), f"TRL {trl.__version__} has other losses: tltrain/entry/arguments.py"
    for level in ("token", "sequence"):
        assert f'self.importance_sampling_level == "{level}"' in source
    assert trl.GRPOConfig.__dataclass_fields__["loss_type"].default == "dapo"  # as docs/irm.md says


def test_vllm_is_told_which_tokens_end_an_answer_unless_the_user_does():
    assert vllm_stop_tokens(None, {7, 3}) == {"stop_token_ids": [3, 7]}
    assert vllm_stop_tokens({"stop_token_ids": [1], "n": 1}, {7}) == {"stop_token_ids": [1], "n": 1}

"""The reward of whole conversations: by hand, and what scripted players can earn with its default prices."""

from __future__ import annotations

import importlib.util
import math
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from tests.support.composition import composed
from tests.support.environment_samples import Room, hold, says
from tests.support.mae_rules import STRICT
from tltrain.data import bfcl as bfcl_data
from tltrain.environments import bfcl
from tltrain.environments.loop import Conversation, ConversationSettings, converse
from tltrain.errors import TltrainError
from tltrain.formats.calls import render_call
from tltrain.formats.native import Answer, Attempt
from tltrain.stages import irm
from tltrain.toolworld import environment
from tltrain.toolworld.environment import Toolworld, script_of
from tltrain.toolworld.scripts import identity_of
from tltrain.training import conversation_reward, pricing
from tltrain.training.conversation_reward import part_sums
from tltrain.trajectory import FINISH, Call, Task

pytestmark = pytest.mark.slow


def configured(*words: str, matching: str = "strict") -> conversation_reward.Price:
    cfg = composed("stage=irm", "stage.rollout=conversation", "model=tiny", *(words or ("reward=conversation",)))
    return pricing.configured_for_conversations(cfg.reward, matching)


CONVERSING = ("stage.rollout=conversation", "reward=conversation")
PRICE = configured()
TWO = [[Call("look", {"at": "a"}), Call("look", {"at": "b"}), Call("finish", {"answer": "right"})]]


def parts(conversation: Conversation, golden=TWO, price=PRICE) -> list[dict[str, float]]:
    return [dict(turn.parts) for turn in price(conversation, golden)]


# --- by hand ----------------------------------------------------------------------------------------------------------


def test_the_golden_conversation():
    found = hold(says('look(at="a")', 'look(at="b")', 'finish(answer="right")'))
    assert parts(found) == [{"golden": 0.1}, {"golden": 0.1}, {"outcome": 1.0}]
    assert [turn.message for turn in PRICE(found, TWO)] == [1, 3, 5]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        pytest.param(
            ["", 'look(at="a")', 'finish(answer="right")'],
            [{"documentation": -0.25}, {"golden": 0.1}, {"outcome": 1.0}],
            id="what did not run leaves the golden path open",
        ),
        pytest.param(
            ['look(at="b")', 'look(at="a")', 'finish(answer="right")'],
            [{"golden": -0.05}, {}, {"outcome": 1.0}],
            id="another order ends the golden path",
        ),
        pytest.param(
            ['look(at="a", to="b")', 'finish(answer="right")'],
            [{"documentation": -0.2}, {"calls": -0.25, "outcome": 1.0}],
            id="undocumented parameter, and the end before the second call",
        ),
        pytest.param(
            ["peek()", "So: look()", 'finish(answer="wrong")'],
            [{"documentation": -0.25}, {"documentation": -0.25}, {"outcome": -1.0}],
            id="no such tool, words before the call, wrong answer",
        ),
        pytest.param(['finish(answer="wrong")'], [{"calls": -0.5, "outcome": -1.0}], id="giving up at once"),
        pytest.param(
            ['look(at="a")', 'look(at="b")', 'look(at="b")', 'finish(answer="right")'],
            [{"golden": 0.1}, {"golden": 0.1}, {"calls": -0.1}, {"outcome": 1.0}],
            id="a call too many",
        ),
        pytest.param(
            ['look(at="a")', *['look(at="c")'] * 4],
            [{"golden": 0.1}, {"golden": -0.05}, {"calls": -0.1}, {"calls": -0.1}, {"calls": -0.1, "outcome": -1.0}],
            id="the turn limit",
        ),
        pytest.param(['look(at="a")', None], [{"golden": 0.1, "outcome": -1.0, "calls": -0.25}], id="too long"),
    ],
)
def test_each_call_pays_its_worst_price_where_it_is_made(said, expected):
    found = hold(says(*said), max_turns=5)
    assert [pytest.approx(turn) for turn in expected] == parts(found)


def test_an_error_of_a_tool_costs_unless_the_call_is_the_golden_one():
    room = Room(seen=lambda at: "Error: there is nothing")
    found = hold(says('look(at="a")', 'look(at="c")', 'finish(answer="right")'), room, rule=STRICT)
    assert [call.ce for call in found.calls] == [True, True, False]
    assert parts(found) == [{"golden": 0.1}, {"tool_error": -0.15}, {"outcome": 1.0}]


def test_a_call_beyond_golden_ones_that_tools_refused_costs_too():
    room = Room(seen=lambda at: "Error: there is nothing" if at == "b" else f"saw {at}")
    found = hold(says('look(at="a")', 'look(at="b")', 'look(at="a")', 'finish(answer="right")'), room, rule=STRICT)
    assert parts(found) == [{"golden": 0.1}, {"golden": 0.1}, {"calls": -0.1}, {"outcome": 1.0}]


def test_without_golden_calls_each_call_costs_a_little():
    found = hold(says('look(at="a")', "oops", 'finish(answer="right")'))
    assert parts(found, None) == [{"calls": -0.02}, {"documentation": -0.25}, {"outcome": 1.0}]


@pytest.mark.parametrize(("success", "ended", "expected"), [(None, 1, 0.0), (None, 0, -1.0)])
def test_an_outcome_that_nobody_knows(success, ended, expected):
    class Silent(Room):
        def outcome(self):
            return {"success": success}

    found = hold(says('look(at="a")', 'finish(answer="")' if ended else None), Silent())
    assert part_sums(PRICE(found, None))["outcome"] == expected


def test_golden_calls_of_each_turn_of_the_user_and_of_those_not_reached():
    golden = [[Call("look", {"at": "a"})], [Call("peek", {"at": "b"})], [Call("peek", {"at": "c"})] * 2]
    said = ('look(at="a")', 'finish(answer="")', 'peek(at="b")', 'finish(answer="")', None)
    found = hold(says(*said), Room(queries=3))
    assert parts(found, golden) == [{"golden": 0.1}, {}, {"golden": 0.1}, {"calls": -0.5, "outcome": -1.0}]
    found = hold(says('finish(answer="")', 'peek(at="b")', None), Room(queries=3))
    assert parts(found, golden) == [{"calls": -0.25}, {"calls": -0.5, "outcome": -1.0}]


def test_words_may_end_a_turn_of_the_user():
    room = Room(queries=2)
    room.words_end_turn = True
    found = hold(lambda samples: [Answer(text="I cannot do that.")] * len(samples), room)
    golden = [[], [Call("peek", {"at": "b"})]]
    assert parts(found, golden) == [{}, {"calls": -0.25, "outcome": -1.0}]


def test_open_text_leaves_a_call_on_the_golden_path():
    golden = [[Call("look", {"at": "the door"}), Call("look", {"at": "b"})]]
    found = hold(says('look(at="door")', 'look(at="b")', 'finish(answer="right")'))
    assert parts(found, golden)[:2] == [{"golden": -0.05}, {}]
    price = configured("reward=conversation", "reward.open_parameters=[look.at]")
    assert parts(found, golden, price)[:2] == [{"golden": 0.1}, {"golden": 0.1}]


def test_a_mistake_without_a_price_is_still_none_of_the_golden_calls():
    found = hold(says('look(at="c")', 'look(at="b")', 'finish(answer="right")'))
    price = configured("reward=conversation", "reward.wrong_value=0", "reward.correct=0.2")
    assert parts(found, price=price) == [{}, {}, {"outcome": 1.0}]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("reward.wrong_value=0", None),
        ("reward.correct=0", "reward.correct=0: expected above 0, since a lucky guess"),
        ("reward.superfluous_call=0", "reward.superfluous_call=0: expected below 0, since calls beyond"),
        (
            "reward.missing_call=-0.2",
            "reward.missing_call=-0.2: expected at most reward.format_error=-0.25, since giving",
        ),
    ],
)
def test_prices_that_open_a_loophole_are_told(word, said):
    found = conversation_reward.loopholes(composed("stage=irm", *CONVERSING, word).reward)
    assert found == [] if said is None else len(found) == 1 and found[0].startswith(said)


def test_several_calls_of_an_answer_share_its_turn():
    found = hold(says('look(at="a")', 'look(at="b")', 'finish(answer="right")'))
    together = [call for call in found.calls]
    object.__setattr__(together[1], "message", 1)
    assert parts(found)[0] == {"golden": 0.2}


def test_text_after_a_call_costs_what_its_key_says_beside_the_price_of_the_call():
    said = ('look(at="a") and then I look at b', 'look(at="c")\n\n', 'finish(answer="right") Done.')
    found = hold(says(*said))
    assert [call.outcome.value for call in found.calls] == ["correct"] * 3  # as evaluation counts them
    assert [message.text for message in found.messages if message.role == "assistant"] == [""] * 3
    assert parts(found) == [{"golden": 0.1}, {"golden": -0.05}, {"outcome": 1.0}]
    price = configured("reward=conversation", "reward.trailing_text=-0.03")
    assert parts(found, price=price) == [
        {"golden": 0.1, "trailing_text": -0.03},
        {"golden": -0.05},
        {"outcome": 1.0, "trailing_text": -0.03},
    ]
    native = Answer(text="I look.", attempts=(Attempt(Call("look", {"at": "a"})), Attempt(Call("look", {"at": "b"}))))
    found = hold(lambda samples: [native if len(samples[0].messages) == 1 else None])
    assert parts(found, price=price) == [{"golden": 0.2, "outcome": -1.0}]


def test_giving_up_a_long_task_at_once_costs_as_much_as_failing_at_it():
    """The end of 20 golden calls of which none was tried pays -1 and 20 times -0.25, more than a clip of 5."""
    clips = [
        irm.settings(composed("stage=irm", "model=tiny", *words)).reward_clip
        for words in ((), ("stage.reward_clip=2",), (*CONVERSING, "stage.reward_clip=2"), CONVERSING)
    ]
    assert clips == [5.0, 2.0, 2.0, math.inf]
    golden = [[Call("look", {"at": str(at)}) for at in range(20)]]
    earned = []
    for tried in (0, 4, 20):
        found = hold(says(*["?"] * tried, 'finish(answer="")'), max_turns=99)
        earned.append(sum(max(-clips[-1], min(clips[-1], turn.reward)) for turn in PRICE(found, golden)))
    assert earned == pytest.approx([-6.0, -6.0, -6.0])


def test_a_broken_environment_is_no_outcome():
    class Broken(Room):
        def call(self, call):
            raise OSError

    found = hold(says('look(at="a")'), Broken())
    assert not conversation_reward.usable(found)
    assert "outcome" not in {name for turn in parts(found) for name in turn}


def test_the_parts_of_a_conversation_by_name():
    found = hold(says('look(at="a")', "", 'finish(answer="right")'))
    assert part_sums(PRICE(found, TWO)) == pytest.approx(
        {"outcome": 1.0, "documentation": -0.25, "tool_error": 0, "golden": 0.1, "calls": 0, "trailing_text": 0}
    )


# --- how it is chosen -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["reward=paper"], "reward=table: prices single calls, and stage.rollout=conversation has whole conversations"),
        (["reward=conversation", "reward.failure=2"], "reward.failure=2: expected less than reward.unknown=0"),
        (["reward=conversation", "reward.open_parameters=[x]"], "expected a list of TOOL.PARAMETER, found 'x'"),
    ],
)
def test_wrong_choices(words, message):
    with pytest.raises(TltrainError, match=message):
        configured(*words)


def test_single_calls_have_no_conversation_to_price():
    with pytest.raises(TltrainError, match="reward=conversation: prices whole conversations, and these are single"):
        pricing.configured(composed("stage=irm", "model=tiny", "reward=conversation").reward, "strict")


def shortest(conversation, golden, a_call: float = 0.5):
    """A reward of a user's own: the outcome less the number of calls."""
    return conversation.outcome["success"] - a_call * len(conversation.calls)


def each(conversation):
    return [0.25] * sum(message.role == "assistant" for message in conversation.messages)


def nonsense(conversation):
    return "much"


def own(function, **keys) -> conversation_reward.Price:
    target = f"{__name__}.{function.__name__}"
    return pricing.configured_for_conversations(OmegaConf.create({"_target_": target, "name": "x"} | keys), "strict")


def test_a_reward_of_a_users_own():
    found = hold(says('look(at="a")', 'finish(answer="right")'))
    assert parts(found, None, own(shortest, a_call=0.1)) == [{"own": 0.0}, {"own": 0.8}]
    assert parts(found, None, own(each)) == [{"own": 0.25}] * 2
    with pytest.raises(TltrainError, match=r"conversation t0: expected a finite number, or one .* 2 .*, found 'much'"):
        own(nonsense)(found, None)
    with pytest.raises(TltrainError, match="prices single calls"):
        own(shortest_call)


def shortest_call(response):
    return -len(response)


# --- what players earn ------------------------------------------------------------------------------------------------

SPLITS = [(split, tools) for split in ("train", "validation", "test") for tools in ("standard", "confusable")]


def played(identity: str, said: list[str]) -> Conversation:
    """Play these answers, after which the context is full."""
    answers = iter([*said, None])
    (found,) = converse(
        [Task(identity)],
        Toolworld,
        lambda samples: [next(answers)],
        ConversationSettings(max_turns=10, rule=STRICT),
        parallel=1,
    )
    return found


def total(conversation: Conversation, golden, gamma: float = 1.0) -> float:
    return math.fsum(gamma**t * turn.reward for t, turn in enumerate(PRICE(conversation, golden)))


def other_calls(identity: str) -> list[str]:
    """Return what a player may say besides golden calls: rubbish, other tools, questions, early ends."""
    script = script_of(identity)
    golden = [render_call(call) for call in script.golden]
    others = [f"{name}()" for name in script.offered if name != FINISH]
    return [
        *golden,
        *others,
        'ask_to_user(question="And?")',
        'finish(answer="Done.")',
        "I do not know.",
        "no_such_tool()",
        f"Let me see: {golden[0]}",
        golden[0].replace("(", "(nonsense=1, ", 1),
    ]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(SPLITS), st.integers(0, 400), st.integers(0, 2**32), st.sampled_from([1.0, 0.95]))
def test_only_the_golden_calls_with_a_right_outcome_earn_the_most(split, index, seed, gamma):
    identity = identity_of(*split, 0, index)
    golden = environment.golden_calls(Task(identity))
    right = [render_call(call) for call in golden[0]]
    best = total(played(identity, right), golden, gamma)
    rng, said = Random(seed), list(right)
    for _ in range(rng.randint(1, 3)):  # repeat, replace, insert, leave out, exchange
        at = rng.randrange(len(said)) if said else 0
        kind = rng.choice(("insert", "replace", "delete", "exchange"))
        if kind == "insert" or not said:
            said.insert(at, rng.choice(other_calls(identity)))
        elif kind == "replace":
            said[at] = rng.choice(other_calls(identity))
        elif kind == "delete":
            del said[at]
        else:
            other = rng.randrange(len(said))
            said[at], said[other] = said[other], said[at]
    found = played(identity, said)
    same = [call.call for call in found.calls[:-1]] == list(golden[0][:-1]) and found.outcome["success"]
    assert total(found, golden, gamma) == pytest.approx(best) if same else total(found, golden, gamma) < best - 0.04


@pytest.mark.parametrize("split", SPLITS)
def test_lazy_players_never_earn_the_most_and_giving_up_earns_least(split):
    for index in range(25):
        identity = identity_of(*split, 1, index)
        golden = (script_of(identity).golden,)
        right = [render_call(call) for call in golden[0]]
        needed = len(right) - 1
        give_up = 'finish(answer="I cannot say.")'
        players = {
            "giving up": [give_up],
            "nothing": [""] * 12,
            "early": [*right[: needed // 2], give_up],
            "repeats": [right[0]] * 12,
            "asks": ['ask_to_user(question="What?")'] * 12,
            "errs": ["?"] * needed + [give_up],
            "wrong answer": [*right[:-1], give_up],
            "more": [*right[:-1], right[-2], right[-1]],
        }
        found = {name: played(identity, said) for name, said in players.items()}
        if found["wrong answer"].outcome["success"]:  # no fact has to be stated: any answer is right
            del found["wrong answer"]
        earned = {name: total(conversation, golden) for name, conversation in found.items()}
        best = total(played(identity, right), golden)
        assert best == pytest.approx(1 + 0.1 * needed)
        assert max(earned.values()) < best
        if not found["giving up"].outcome["success"]:
            assert earned["giving up"] <= min(earned[name] for name in ("early", "errs")) + 1e-9
        for going_on in ("nothing", "repeats", "asks"):
            assert earned[going_on] < earned.get("wrong answer", best)


@pytest.mark.skipif(importlib.util.find_spec(bfcl_data.PACKAGE) is None, reason="bfcl-eval is not installed")
def test_the_golden_calls_of_bfcl_earn_the_most():
    from tests.support.bfcl_package import benchmark

    asked = benchmark(None, "multi_turn_base", "multi_turn_miss_func")
    make = bfcl.make(asked)
    for task in bfcl.tasks(asked)[::40]:
        golden = bfcl.golden_calls(asked, task)
        end = render_call(Call(FINISH, {"answer": ""}))
        right = [text for turn in golden for text in (*map(render_call, turn), end)]

        def play(said, task=task):
            answers = iter([*said, None])
            settings = ConversationSettings(max_turns=40)
            (found,) = converse([task], make, lambda samples: [next(answers)], settings, parallel=1)
            return found

        best = total(play(right), golden)
        calls = sum(len(turn) for turn in golden)
        assert best == pytest.approx(1 + 0.1 * calls)
        for said in ([end] * len(golden), right[:-1], right[1:], [right[0], *right], [*right[:-1], right[0], end]):
            assert total(play(said), golden) < best

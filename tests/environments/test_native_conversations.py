"""Conversations of models with a native format: several calls in a message, thoughts, unreadable text."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.environment_samples import Room, hold
from tests.support.mae_rules import STRICT
from tests.support.native_formats import NAMES, answer_in, encoder
from tltrain.environments.loop import Conversation, ConversationSettings, converse
from tltrain.evaluation import conversation_scores
from tltrain.formats.calls import render_call
from tltrain.formats.native import Answer, Attempt
from tltrain.grading import Outcome
from tltrain.toolworld import environment
from tltrain.trajectory import Call, Message, Sample, Task


def answers(*said: Answer | None) -> Callable[[Sequence[Sample]], list[Answer | None]]:
    """Return a source that answers a conversation's n-th question with the n-th answer."""
    return lambda samples: [said[sum(m.role == "assistant" for m in sample.messages)] for sample in samples]


def calls(*made: Call, text: str = "", thought: str = "") -> Answer:
    return Answer(thought, text, tuple(map(Attempt, made)))


X, Y, RIGHT = Call("look", {"at": "x"}), Call("look", {"at": "y"}), Call("finish", {"answer": "right"})
BROKEN = Attempt(None, "the call cannot be read: no comma", '{"name": "look" "at"}')


# --- what happens to an answer ----------------------------------------------------------------------------------------


def test_several_calls_of_a_message_run_in_order_and_each_is_answered():
    room = Room()
    found = hold(answers(calls(X, Y, text="Both.", thought="Hm."), calls(RIGHT)), room)
    assert room.calls == [X, Y]
    said, one, other = found.messages[1:4]
    assert (said.text, said.thought, [made.call for made in said.calls]) == ("Both.", "Hm.", [X, Y])
    assert (one.text, other.text) == ("saw x", "saw y")
    assert [one.answers, other.answers] == [made.id for made in said.calls] and len({one.answers, other.answers}) == 2
    assert [(call.message, call.text, call.ran, call.de) for call in found.calls] == [
        (1, 'look(at="x")', True, False),
        (1, 'look(at="y")', True, False),
        (4, 'finish(answer="right")', False, False),
    ]
    assert (found.ended, found.answer, found.outcome) == ("finish", "right", {"success": True})


def test_a_call_that_cannot_be_read_is_a_format_error_and_the_others_run():
    room = Room()
    found = hold(answers(Answer(attempts=(Attempt(X), BROKEN, Attempt(Y))), calls(RIGHT)), room)
    assert room.calls == [X, Y]
    assert [call.outcome for call in found.calls] == [
        Outcome.CORRECT, Outcome.FORMAT_ERROR, Outcome.CORRECT, Outcome.CORRECT,
    ]  # fmt: skip
    said = found.messages[1]
    assert said.text == BROKEN.raw and [made.call for made in said.calls] == [X, Y]
    assert [(message.role, message.text) for message in found.messages[2:5]] == [
        ("tool", "saw x"),
        ("tool", "saw y"),
        ("tool", "Error: not a call: the call cannot be read: no comma. Call one of the tools."),
    ]
    assert found.messages[4].answers == ""


@pytest.mark.parametrize(
    ("answer", "text", "said"),
    [
        (Answer(text="I would look."), "I would look.", "Error: not a call: the answer makes no call."),
        (Answer(), "", "Error: not a call: the answer makes no call."),
        (Answer("Hm.", problem="nothing follows the thought"), "", "Error: not a call: nothing follows"),
        (Answer(attempts=(BROKEN,)), BROKEN.raw, "Error: not a call: the call cannot be read"),
        (calls(Call("look", {"at": "\ud800"})), 'look {"at": "�"}', "Error: not a call: no call of the TL format"),
    ],
)
def test_an_answer_without_a_call_is_a_format_error_and_the_conversation_goes_on(answer, text, said):
    room = Room()
    found = hold(answers(answer, calls(RIGHT)), room)
    assert (room.calls, found.ended) == ([], "finish")
    assert found.messages[2].role == "tool" and found.messages[2].text.startswith(said)
    assert [call.outcome for call in found.calls] == [Outcome.FORMAT_ERROR, Outcome.CORRECT]
    assert not found.messages[1].calls and found.messages[1].thought == answer.thought
    found.messages[1].text.encode()


def test_a_tool_that_is_not_on_offer_is_answered_with_those_that_are():
    found = hold(answers(calls(Call("peek", {"at": "x"}), X), calls(RIGHT)))
    assert [call.outcome for call in found.calls][:2] == [Outcome.TOOL_HALLUCINATION, Outcome.CORRECT]
    assert [message.text for message in found.messages[2:4]] == [
        "Error: `peek` is not on offer. The tools are: look, finish.",
        "saw x",
    ]


def test_finish_and_the_limit_end_a_turn_where_they_stand():
    room = Room()
    found = hold(answers(calls(X, RIGHT, Y)), room)
    assert (room.calls, found.ended, len(found.calls)) == ([X], "finish", 2)
    room = Room()
    found = hold(answers(calls(X), calls(Y, Y, RIGHT)), room, max_turns=2)
    assert (room.calls, found.ended, len(found.calls)) == ([X, Y], "turn limit", 2)


def test_words_end_a_turn_where_the_environment_says_so_and_a_thought_alone_does_not():
    room = Room(queries=2)
    room.words_end_turn = True
    thought = Answer("Hm.", problem="nothing follows the thought")
    found = hold(answers(Answer("Hm.", "It is a door."), thought, calls(RIGHT)), room)
    assert room.heard == [None, "right"]
    assert found.messages[1] == Message("assistant", "It is a door.", thought="Hm.")
    assert [(call.turn, call.outcome) for call in found.calls] == [(2, Outcome.FORMAT_ERROR), (2, Outcome.CORRECT)]


def test_a_prompt_that_no_longer_fits_ends_the_conversation():
    assert hold(answers(calls(X), None)).ended == "too long"


# --- what the model is given next -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_format_goes_on_after_several_calls_broken_ones_and_a_second_turn_of_the_user(name):
    own, prompts = encoder(name), []
    said = answers(
        Answer("Secret 1.", "Words 1.", (Attempt(X), BROKEN, Attempt(Y))),
        Answer("Secret 2.", "Words 2."),
        calls(Call("peek", {"at": "z"}), thought="Secret 3."),
        calls(Call("finish", {"answer": "so"}), thought="Secret 4."),
        calls(RIGHT),
    )

    def answer(samples):
        prompts.extend(own.text(own.prompt(sample)) for sample in samples)
        return said(samples)

    found = hold(answer, Room(queries=2), max_turns=9)
    assert found.ended == "finish" and len(prompts) == 5
    for text in ("saw x", "saw y"):
        assert prompts[1].count(text) == 1
    assert prompts[1].index("saw x") < prompts[1].index("saw y")
    assert prompts[4].rindex("and then?") > prompts[4].index("saw y")
    assert "is not on offer" in prompts[3] and "no comma" in prompts[1]


@pytest.mark.parametrize("name", ["qwen3", "qwen3_5", "hermes", "gemma"])
def test_prompts_are_the_tokens_that_a_server_makes_of_what_its_client_sends(name):
    own, asked = encoder(name), []
    said = answers(calls(X, Y, thought="Hm."), calls(Call("peek", {"at": "z"}), thought="So."), calls(RIGHT))
    hold(lambda samples: [asked.extend(samples), said(samples)][1], Room())
    tools = [
        {
            "type": "function",
            "function": {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)},
        }
        for tool in asked[0].tools
    ]
    made = [{"id": str(k), "type": "function", "function": {"name": call.name, "arguments": dict(call.arguments)}}
            for k, call in enumerate([X, Y, Call("peek", {"at": "z"})])]  # fmt: skip
    thought = (lambda text: {"reasoning_content": text}) if own.native.thoughts else lambda text: {}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "query of t0"},
        {"role": "assistant", "content": "", **thought("Hm."), "tool_calls": made[:2]},
        {"role": "tool", "tool_call_id": "0", "name": "look", "content": "saw x"},
        {"role": "tool", "tool_call_id": "1", "name": "look", "content": "saw y"},
        {"role": "assistant", "content": "", **thought("So."), "tool_calls": made[2:]},
        {
            "role": "tool",
            "tool_call_id": "2",
            "name": "peek",
            "content": "Error: `peek` is not on offer. The tools are: look, finish.",
        },
    ]
    for sample, until in zip(asked, (2, 5, 7), strict=True):
        served = own.tokenizer.apply_chat_template(messages[:until], tools=tools, add_generation_prompt=True)
        assert own.prompt(sample) == served["input_ids"]


def test_thoughts_are_dropped_or_kept_as_the_template_wants():
    """Qwen3 keeps the thoughts after the user's last message and drops earlier ones; Llama 3 writes none."""
    said = answers(
        calls(X, thought="Secret 1."), calls(Call("finish", {"answer": "so"})), calls(Call("peek")), calls(RIGHT)
    )
    prompts: dict[str, list[str]] = {}
    for name in ("qwen3", "llama3"):
        own = encoder(name)

        def answer(samples, own=own, name=name):
            prompts.setdefault(name, []).extend(own.text(own.prompt(sample)) for sample in samples)
            return said(samples)

        hold(answer, Room(queries=2))
    assert ["Secret" in prompt for prompt in prompts["qwen3"]] == [False, True, False, False]
    assert not any("Secret" in prompt for prompt in prompts["llama3"])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-1, 1) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)
CALLED = st.sampled_from(["look", "finish", "peek", "a b", "", "look<|im_end|>", '"', "</tool_call>"])
MADE = st.builds(Call, CALLED | st.text(max_size=6), st.dictionaries(st.text(max_size=4), JSON, max_size=2))
PIECES = st.sampled_from(
    [
        *("<think>", "</think>", "<tool_call>", "</tool_call>", "{{ x }}", "look", '{"at": "x"}', "\ud800"),
        *('{"name": "look", "arguments": {"at": "x"}}', "<function=look>", "<parameter=at>\nx\n</parameter>"),
        *("<|channel|>analysis<|message|>", "<|channel|>final<|message|>", "<|start|>assistant", "<|chan<|end|>nel|>"),
        *(" to=functions.look<|channel|>commentary json<|message|>", "<|call|>", "<|im_end|>", "<|eot_id|>"),
        *(
            "<|tool_call>call:look{at:",
            "<tool_call|>",
            "<|channel>thought\n",
            "<channel|>",
            "<|tool_call_start|>[look(",
        ),
    ]
)
WORDS = st.lists(PIECES | st.text(max_size=5), max_size=4).map("".join)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None)
@given(said=st.lists(WORDS | st.tuples(st.text(max_size=5), st.lists(MADE, max_size=3)), min_size=1, max_size=3))
def test_every_history_can_be_written_whatever_a_model_says(name, said):
    """Text with the formats' marks in any place, and calls of any name with any arguments."""
    own = encoder(name)

    def read(sample: Sample) -> Answer:
        prompt, one = own.prompt(sample), said[sum(m.role == "assistant" for m in sample.messages) % len(said)]
        if isinstance(one, str):
            ids = own.tokenizer(one.encode("utf-8", "replace").decode(), add_special_tokens=False)["input_ids"]
            return own.read(ids, prompt, sample.tools)
        return Answer(one[0], one[0], tuple(map(Attempt, one[1])))

    found = hold(lambda samples: list(map(read, samples)), Room(queries=2), max_turns=3, rule=STRICT)
    assert found.ended in ("finish", "turn limit")
    assert len(found.calls) <= 6
    json.dumps([[call.text, call.reason] for call in found.calls], ensure_ascii=False).encode("utf-8")


# --- the same numbers from the same calls -----------------------------------------------------------------------------

TASKS = [f"toolworld-test-0-{number}" for number in range(12)]


def script(identity: str) -> list[Call | str]:
    """Draw the golden calls of a task, some of them corrupted in the ways in which models fail."""
    draw, steps = Random(identity), []
    for call in environment.script_of(identity).golden:
        wrong = draw.choice(["no", "no", "tool", "unknown", "missing", "value", "words", "refusal"])
        arguments = dict(call.arguments)
        if wrong == "refusal" and call.name == "finish":
            call = Call("finish", dict.fromkeys(arguments, "I cannot complete the task."))
        elif call.name == "finish" or wrong in ("no", "refusal"):
            pass
        elif wrong == "tool":
            steps.append(Call(f"{call.name}_now", arguments))
        elif wrong == "words":
            steps.append("Let me think about this.")
        elif wrong == "missing":
            steps.append(Call(call.name, dict(list(arguments.items())[1:])))
        elif wrong == "unknown":
            steps.append(Call(call.name, {**arguments, "colour": "red"}))
        else:
            steps.append(Call(call.name, {key: "nothing" for key in arguments}))
        steps.append(call)
    return steps


def grouped(steps: Sequence[Call | str], several: bool) -> list[Message]:
    """Return the steps as messages, with two neighbouring calls in one message if the format allows it."""
    messages: list[Message] = []
    for step in steps:
        if isinstance(step, str):
            messages.append(Message("assistant", step))
        elif several and messages and len(messages[-1].calls) == 1:
            messages[-1] = Message.calling(messages[-1].calls[0].call, step)
        else:
            messages.append(Message.calling(step))
    return messages


def played(player: Callable[[Sequence[Sample]], Sequence[str | Answer]]) -> list[Conversation]:
    tasks = [Task(identity, {"scenario": environment.script_of(identity).domain}) for identity in TASKS]
    return converse(tasks, environment.Toolworld, player, ConversationSettings(20, rule=STRICT), parallel=5)


def position(sample: Sample) -> tuple[str, int]:
    return sample.id.rpartition("#")[0], sum(message.role == "assistant" for message in sample.messages)


SCRIPTS: Mapping[str, Sequence[Call | str]] = {identity: script(identity) for identity in TASKS}


def in_tl(samples: Sequence[Sample]) -> list[str]:
    steps = [SCRIPTS[task][at] for task, at in map(position, samples)]
    return [step if isinstance(step, str) else render_call(step) for step in steps]


@pytest.mark.parametrize("name", ["qwen3", "gptoss", "gemma", "llama3", "lfm2"])
def test_the_same_calls_give_the_same_numbers_as_in_the_tl_format(name):
    own = encoder(name)
    messages = {task: grouped(steps, own.native.several_calls) for task, steps in SCRIPTS.items()}

    def in_native(samples: Sequence[Sample]) -> list[Answer]:
        return [answer_in(own, sample, messages[task][at]) for sample in samples for task, at in [position(sample)]]

    tl, native = played(in_tl), played(in_native)
    assert conversation_scores.score(native) == conversation_scores.score(tl)
    assert conversation_scores.count_contradictions(native) == conversation_scores.count_contradictions(tl)
    assert conversation_scores.count_errors(native) == conversation_scores.count_errors(tl)
    for one, other in zip(tl, native, strict=True):
        assert [(c.call, c.outcome, c.error, c.ran) for c in one.calls] == [
            (c.call, c.outcome, c.error, c.ran) for c in other.calls
        ]
        assert (one.ended, one.answer, one.outcome) == (other.ended, other.answer, other.outcome)
    scores = {key: number.value for key, number in conversation_scores.score(tl).items()}
    assert 0 < scores["de"] < 100 and scores["ce"] > 0 and 0 < scores["va"] < 100 and 0 < scores["success"] < 100
    if own.native.several_calls:
        assert any(len(message.calls) == 2 for one in native for message in one.messages)

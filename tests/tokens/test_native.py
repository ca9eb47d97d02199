"""Native formats token by token: prompts as a server builds them, targets, key tokens, and what is left out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import pre_tokenizers, trainers

from tests.support.exactness import PACKINGS, check_contexts, check_prompts
from tests.support.native_formats import (
    NAMES,
    PARALLEL,
    TOOLS,
    answer_in,
    encoder,
    mistral_encoder,
    second_left_out,
    talk,
)
from tests.support.packed import packed
from tltrain import mae
from tltrain.errors import TltrainError
from tltrain.evaluation import key_tokens
from tltrain.formats.families import FAMILIES
from tltrain.models.encoders import native_encoder
from tltrain.models.loading import byte_level_tokenizer
from tltrain.trajectory import ANY, Call, Message, Sample, ToolCall, Trajectory, actions

SEVERAL = tuple(name for name in NAMES if name not in ("llama3", "gptoss"))
family = pytest.mark.parametrize("name", NAMES)
several_calls = pytest.mark.parametrize("name", SEVERAL)


def said_texts(name: str, trajectory: Trajectory) -> list[str]:
    own = encoder(name)
    return ["".join(own.texts(turn.said.ids)) for turn in own.turns(trajectory, 9.0)]


def included(turn) -> list[int]:
    return [target.offset + 1 for target in turn.targets]


@family
@pytest.mark.parametrize("thoughts", [False, True])
@pytest.mark.parametrize("turns", [1, 2, 8])
def test_every_turn_stands_behind_the_ids_that_a_server_builds(name, thoughts, turns):
    check_prompts(encoder(name), talk(turns, thoughts, calls=2))


@pytest.mark.parametrize("name", ["qwen3", "qwen3_5", "gemma"])
@pytest.mark.parametrize("thinking", [False, True])
@pytest.mark.parametrize("turns", [1, 8])
def test_so_it_does_where_thinking_is_switched(name, thinking, turns):
    options = {"enable_thinking": thinking}
    own = native_encoder(encoder(name).tokenizer, name, {"options": options})
    item = talk(turns, thoughts=True)
    check_prompts(own, item, options)
    check_contexts(own, item, "branches")


@pytest.mark.parametrize(
    ("name", "packing"),
    [*((name, "branches") for name in NAMES), *(("qwen3", packing) for packing in PACKINGS if packing != "branches")],
)
def test_every_target_is_predicted_in_the_context_it_has_when_it_is_asked_for(name, packing):
    check_contexts(encoder(name), talk(2, thoughts=True, calls=2), packing)


@settings(max_examples=6)
@given(st.integers(1, 3), st.booleans(), st.integers(1, 2), st.sampled_from(sorted(PACKINGS)))
def test_contexts_are_exact_whatever_the_conversation(turns, thoughts, calls, packing):
    check_contexts(encoder("qwen3"), talk(turns, thoughts, calls), packing)


@family
@pytest.mark.parametrize("thoughts", [False, True])
def test_contexts_are_exact_over_eight_user_turns(name, thoughts):
    check_contexts(encoder(name), talk(8, thoughts), "branches")


def test_trajectories_whose_turns_have_different_contexts_are_counted():
    _, report = packed(encoder("qwen3"), talk(2, thoughts=True))
    assert (report.branching, report.chains > 1) == (1, True)
    _, report = packed(encoder("hermes"), talk(2, thoughts=True))
    assert (report.branching, report.chains, report.samples) == (0, 1, 1)
    with pytest.raises(TltrainError, match=r"have \d different contexts"):
        encoder("qwen3").runs(talk(2, thoughts=True), 9.0)


@family
def test_a_family_ends_answers_with_the_tokens_it_names(name):
    own = encoder(name)
    assert own.native.stop_ids == set(own.tokenizer.convert_tokens_to_ids(list(FAMILIES[name].ends)))
    assert own.eos_id == own.tokenizer.eos_token_id


@family
def test_what_is_learned_is_read_back(name):
    own = encoder(name)
    said = [message for message in own.conversation_messages(PARALLEL) if message.role == "assistant"]
    for turn, message in zip(own.turns(PARALLEL, 9.0), said, strict=True):
        answer = own.read(turn.said.ids, turn.prompt.ids, TOOLS)
        assert (answer.thought, answer.text, answer.problems) == (message.thought, message.text, ())
        assert answer.calls == tuple(made.call for made in message.calls)


@family
def test_a_call_without_arguments_is_read_back(name):
    own = encoder(name)
    asked = Sample("s", TOOLS, (Message("user", "Go."),), ())
    made = [Call("get_user"), Call("get_users", {"count": 3}), Call("get_use")]
    for calls in [made] if own.native.several_calls else [[call] for call in made]:
        answer = answer_in(own, asked, Message.calling(*calls))
        assert (list(answer.calls), answer.problems) == (calls, ())


@family
def test_key_tokens_stand_where_the_names_of_tools_part(name):
    own = encoder(name)
    for called in (TOOLS[0], TOOLS[3], TOOLS[4]):
        item = Trajectory("t", TOOLS, (Message("user", "Go."), Message.calling(Call(called.name, {"id": "7"}))))
        (turn,) = own.turns(item, 9.0)
        texts = own.texts(turn.said.ids)
        keys = sorted(target.offset + 1 for target in turn.targets if target.key)
        at = "".join(texts).index(called.name)
        first = next(i for i in range(len(texts)) if len("".join(texts[: i + 1])) > at)
        expected = {first}
        for other in TOOLS:  # by rendering the whole conversation with the other tool's name
            renamed = replace(item, messages=(item.messages[0], Message.calling(Call(other.name, {"id": "7"}))))
            (again,) = own.turns(renamed, 9.0)
            shared = next((i for i, (a, b) in enumerate(zip(turn.said.ids, again.said.ids, strict=False)) if a != b), 0)
            if other.name != called.name and shared > first:
                expected.add(shared)
        assert keys == sorted(expected)
        weight = min(max((len(texts) - len(keys)) / len(keys), 1.0), 9.0)
        assert {target.weight for target in turn.targets if target.key} == {weight}
        assert len(keys) > 1 or called.name == "set_user"


def test_a_name_that_the_tokenizer_joins_with_its_quote_has_its_key_there():
    texts = ['{"name": "get_user", "name": "get_users", "name": "get_user_name"}'] * 9
    tokenizer = byte_level_tokenizer(texts, 300, "hermes")
    joined = tokenizer.backend_tokenizer
    joined.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split('"get', "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    joined.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=700, special_tokens=list(tokenizer.get_added_vocab()), show_progress=False),
    )
    own = native_encoder(tokenizer, "hermes", {})
    item = Trajectory("t", TOOLS, (Message("user", "Go."), Message.calling(Call("get_user", {}))))
    (turn,) = own.turns(item, 9.0)
    keys = [own.texts([target.token])[0] for target in turn.targets if target.key]
    assert keys[0].startswith('"get')


@several_calls
def test_the_keys_of_every_call_of_a_message_count(name):
    (turn, _) = encoder(name).turns(PARALLEL, 9.0)
    texts = encoder(name).texts(turn.said.ids)
    whole = "".join(texts)
    starts = [len("".join(texts[: target.offset + 1])) for target in turn.targets if target.key]
    first, second = (whole.index(f"{call}") for call in ("get_user", "get_users"))
    assert any(first - 1 <= start < first + 8 for start in starts)
    assert any(second - 1 <= start < second + 9 for start in starts)


@several_calls
def test_of_parallel_calls_only_the_failed_one_is_left_out(name):
    own = encoder(name)
    rule = mae.Rule.from_config({"match": "normalized_substring", "patterns": [{"kind": "error", "text": "Error:"}]})
    judged = mae.apply(PARALLEL, rule)
    assert [action.learn for action in actions(judged.messages)] == [True, False, True]
    whole, part = (next(own.turns(item, 9.0)) for item in (PARALLEL, judged))
    assert whole.said.ids == part.said.ids and included(whole) == list(range(len(whole.said.ids)))
    left_out = sorted(set(included(whole)) - set(included(part)))
    text = "".join(own.texts([whole.said.ids[i] for i in left_out]))
    assert "get_users" in text and "count" in text and '"7"' not in text and "Both" not in text
    kept = "".join(own.texts([whole.said.ids[i] for i in included(part)]))
    assert "get_user" in kept and "get_users" not in kept and "7" in kept
    assert left_out == list(range(left_out[0], left_out[-1] + 1)) and len(whole.said.ids) - 1 in included(part)
    keys = {target.offset + 1 for target in part.targets if target.key}
    assert keys and keys.isdisjoint(left_out)


def test_a_whole_message_can_be_left_out_for_one_failed_call():
    judged = mae.whole_messages(second_left_out())
    assert [action.learn for action in actions(judged.messages)] == [False, False, True]
    assert [turn.number for turn in encoder("hermes").turns(judged, 9.0)] == [2]


@pytest.mark.parametrize("name", ["llama3", "gptoss"])
def test_where_a_template_writes_one_call_a_message_they_become_turns(name):
    own = encoder(name)
    assert [turn.number for turn in own.turns(PARALLEL, 9.0)] == [0, 1, 2]
    assert own.not_written([PARALLEL])["several calls in a message, which become turns of their own"] == 1
    assert [turn.number for turn in own.turns(second_left_out(), 9.0)] == [0, 2]


def test_what_a_template_does_not_write_is_counted():
    assert encoder("hermes").not_written([PARALLEL]) == {"a thought, which is left out": 1}
    assert encoder("gemma").not_written([PARALLEL]) == {"words beside a call, which are left out": 1}
    assert encoder("gptoss").not_written([PARALLEL])["words beside a call, which are left out"] == 1
    assert encoder("qwen3").not_written([PARALLEL]) == {}


def test_names_that_an_api_does_not_allow_are_offered_as_a_server_would_and_read_back():
    tools = (replace(TOOLS[0], name="math.gcd"), replace(TOOLS[1], name="finish"))
    item = Trajectory("t", tools, (Message("user", "Go."), Message.calling(Call("math.gcd", {"id": "7"}))))
    own = encoder("qwen3")
    (turn,) = own.turns(item, 9.0)
    assert "math_gcd" in "".join(own.texts(turn.said.ids))
    assert own.answer(turn.said.ids, turn.prompt.ids, tools) == 'math.gcd(id="7")'


def test_a_tokenizer_without_the_tokens_of_a_format_is_refused(byte_level):
    with pytest.raises(TltrainError, match=r"format=qwen3: the tokenizer .* lacks its tokens <\|im_start\|>"):
        native_encoder(byte_level, "qwen3", {})


def test_a_template_that_offers_no_tools_is_refused(byte_level):
    byte_level.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}{{ eos_token }}"
    try:
        with pytest.raises(TltrainError, match="format=native: the model's chat template does not pass tools"):
            native_encoder(byte_level, "native", {})
    finally:
        byte_level.chat_template = None


def test_an_option_that_the_template_does_not_have_is_refused():
    with pytest.raises(TltrainError, match=r"format.options.enable_thought: the model's chat template has no such"):
        native_encoder(encoder("qwen3").tokenizer, "qwen3", {"options": {"enable_thought": True}})


@pytest.fixture(scope="module")
def mistral():
    return mistral_encoder()


def test_a_model_of_mistrals_is_trained_in_its_own_template_and_read_back(mistral):
    for item in (talk(3, thoughts=False, calls=2), replace(PARALLEL, instructions="")):
        check_prompts(mistral, item)
        check_contexts(mistral, item, "branches")
        said = [message for message in mistral.conversation_messages(item) if message.role == "assistant"]
        for turn, message in zip(mistral.turns(item, 9.0), said, strict=True):
            answer = mistral.read(turn.said.ids, turn.prompt.ids, item.tools)
            assert (answer.text, answer.problems) == (message.text, ())
            assert answer.calls == tuple(made.call for made in message.calls)
    assert packed(mistral, talk(3, thoughts=False))[1].branching == 1


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[TOOL_CALLS][{"name": "get_user", "arg]', "the call cannot be read: Unterminated string"),
        ('[TOOL_CALLS]{"name": "get_user", "arguments": {}}', "requires the parsed content to be a list, got dict"),
        ('[TOOL_CALLS][{"name": "get_user"}]', "'{arguments}' is not defined"),
        ("[TOOL_CALLS][]", "is empty"),
        ('[{"name": "get_user", "arguments": {}}]', "a call stands in the text, which is not how this format"),
    ],
)
def test_what_is_no_list_of_calls_is_an_error_of_mistrals_format(mistral, text, problem):
    (answer,) = (mistral.read(encoded.ids, [], TOOLS) for encoded in mistral.encode([text + "<|im_end|>"]))
    assert answer.calls == () and len(answer.problems) == 1 and problem in answer.problems[0]


def test_several_calls_of_mistrals_list_are_read_with_words_before_them(mistral):
    text = 'Both. [TOOL_CALLS][{"name": "get_user", "arguments": {"id": "7"}}, {"name": "finish", "arguments": {}}]'
    (encoded,) = mistral.encode([text])
    answer = mistral.read(encoded.ids, [], TOOLS)
    assert (answer.text, answer.calls) == ("Both.", (Call("get_user", {"id": "7"}), Call("finish", {})))


@pytest.mark.parametrize("end", ["", "</tool_call>"])
def test_a_template_without_an_end_token_is_refused(end):
    template = (
        "{{ tools }}{% for m in messages %}{{ m.role }}: {{ m.content }}"
        "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function.name }}</tool_call>{% endfor %}"
        "{{ end if m.role == 'assistant' }}{% endfor %}{{ 'assistant: ' if add_generation_prompt }}"
    ).replace("end if", f"'{end}' if")
    tokenizer = byte_level_tokenizer([], 300, "hermes")
    tokenizer.chat_template = template
    with pytest.raises(TltrainError, match="does not end an answer with an end token of the tokenizer"):
        native_encoder(tokenizer, "native", {})


def test_text_of_the_tl_format_is_refused_in_one_line():
    with pytest.raises(TltrainError, match="works only with format=tl so far, not with format=qwen3"):
        encoder("qwen3").format.call_text(Call("f"))


def test_thoughts_are_left_out_and_counted_where_the_prompt_has_closed_them():
    own = native_encoder(encoder("qwen3").tokenizer, "qwen3", {"options": {"enable_thinking": False}})
    assert own.not_written([talk(1, thoughts=True)]) == {"a thought, which is left out": 2}
    turn, _ = own.turns(talk(1, thoughts=True), 9.0)
    assert "Thought" not in own.tokenizer.decode(turn.said.ids)
    assert own.tokenizer.decode(turn.prompt.ids).endswith("<think>\n\n</think>\n\n")


def test_words_before_two_calls_and_calls_with_their_own_flags():
    message = Message("assistant", "Both.", (ToolCall(Call("get_user")), ToolCall(Call("finish"))), learn=False)
    item = Trajectory("t", TOOLS, (Message("user", "Go."), message))
    (turn,) = encoder("hermes").turns(item, 9.0)
    learned = "".join(encoder("hermes").texts([turn.said.ids[i] for i in included(turn)]))
    assert "Both" not in learned and "get_user" in learned and learned.endswith("<|im_end|>")


@pytest.mark.parametrize("name", NAMES)
def test_key_tokens_of_golden_calls_are_those_that_training_weighs(name):
    own = encoder(name)
    samples = [Sample(n, TOOLS, (Message("user", "Go."),), (Call(n, {"id": ANY}),)) for n in ("get_users", "finish")]
    found = key_tokens.count(own, samples)
    turns = [
        next(own.turns(Trajectory("t", TOOLS, (Message("user", "Go."), Message.calling(Call(n, {"id": "any"})))), 9.0))
        for n in ("get_users", "finish")
    ]
    numbers = [sum(target.key for target in turn.targets) for turn in turns]
    assert found.calls == 2 and found.per_call == round(sum(numbers) / 2, 3)
    assert numbers[0] > 1 and found.several == 50 * sum(number > 1 for number in numbers)
    assert found.not_counted == {}


def test_golden_calls_that_a_template_cannot_write_are_said_to_be_left_out(monkeypatch):
    def refuse(*args):
        raise TltrainError("the chat template refuses a conversation")

    own = encoder("hermes")
    monkeypatch.setattr(own.native, "said", refuse)
    found = key_tokens.count(own, [Sample("s", TOOLS, (), (Call("finish"),))])
    assert found.calls == 0 and found.not_counted == {"the chat template refuses a conversation": 1}

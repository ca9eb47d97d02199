"""source=endpoint with a server that misbehaves: requests, retries, the cache of answers, and messages."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest

from tests.support.fake_endpoint import Reply, completion, endpoint_config, message, serving
from tests.support.paths import ROOT
from tests.support.processes import PROBE, process
from tltrain import toolworld
from tltrain.errors import TltrainError
from tltrain.formats import chat_completions, joined
from tltrain.formats.calls import render_call
from tltrain.formats.tl import TL
from tltrain.sources import open_source
from tltrain.trajectory import Call, Message, example

pytest.importorskip("openai")

SAMPLES = list(toolworld.samples(12, 0))
GOLDEN = [render_call(example(sample.goldens[0])) for sample in SAMPLES]
BY_PROMPT = {joined(TL.prompt_segments(s)): golden for s, golden in zip(SAMPLES, GOLDEN, strict=True)}
NUMBER = {prompt: number for number, prompt in enumerate(BY_PROMPT)}
SECRET = "sk-secret-of-the-user"


@pytest.fixture
def server():
    with serving() as server:
        server.reply = lambda body, attempt: completion(BY_PROMPT[body["prompt"]])
        yield server


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def config(server, tmp_path):
    """`config(mode="chat", ...)` returns the configuration of an endpoint on the server."""

    def make(**source):
        return endpoint_config(server.url, tmp_path / "cache", **source)

    return make


def answers(cfg, samples=SAMPLES):
    with open_source(cfg) as source:
        return source(samples)


# --- requests --------------------------------------------------------------------------------------------------------


def test_text_mode_asks_with_the_tl_prompt_and_cuts_the_answer_as_the_local_model_does(server, config):
    longer = {
        0: f" {GOLDEN[0]}\nUser: and now?",
        1: " no call here \nUser: more\nOutput: x",
        2: f"{GOLDEN[2]} {GOLDEN[3]}",
    }
    server.reply = lambda body, attempt: completion(longer[NUMBER[body["prompt"]]])
    assert answers(config(), SAMPLES[:3]) == [GOLDEN[0], "no call here", GOLDEN[2]]
    assert {asked.path for asked in server.asked} == {"/v1/completions"}
    assert {asked.body["prompt"] for asked in server.asked} == set(list(BY_PROMPT)[:3])
    for asked in server.asked:
        assert asked.body.items() >= {"model": "served", "max_tokens": 64, "temperature": 0.0}.items()
        assert asked.body["stop"] == ["\nUser:", "\nOutput:", "\nSystem:"]
        assert "seed" not in asked.body


def test_fields_are_added_replaced_and_removed(server, config):
    extra = {"add_special_tokens": False, "max_tokens": None, "max_completion_tokens": 7}
    answers(config(temperature=0.5, extra=extra), SAMPLES[:1])
    (asked,) = server.asked
    assert asked.body.items() >= {"add_special_tokens": False, "max_completion_tokens": 7, "seed": 3}.items()
    assert "max_tokens" not in asked.body


def test_a_tokenizer_turns_the_prompt_into_the_ids_of_the_local_model(server, config, byte_level, tmp_path):
    from tltrain.tokens.encoder import Encoder

    byte_level.save_pretrained(tmp_path / "tokenizer")
    server.reply = lambda body, attempt: completion("f()")
    answers(config(tokenizer=str(tmp_path / "tokenizer")), SAMPLES[:1])
    assert server.asked[0].body["prompt"] == Encoder(byte_level).prompt(SAMPLES[0])


@pytest.mark.parametrize("bos", ["auto", True, False])
def test_a_server_is_told_of_the_bos_token_where_the_tokenizer_does_not_decide(server, config, bos):
    cfg = config()
    cfg.model.bos = bos
    answers(cfg, SAMPLES[:1])
    assert server.asked[0].body.get("add_special_tokens", "auto") == bos


def test_chat_mode_offers_native_tools_and_writes_their_calls_as_text(server, config):
    replies = [
        message(tool_calls=[tool_call("f", '{"a": [1, "x"], "b": null}')]),
        message(content=None, tool_calls=[tool_call("f", '{"a": 1'), tool_call("g", "")]),
        message(content=" Which one? \n"),
        message(content=None),
    ]
    asked_for = [chat_completions.request(sample) for sample in SAMPLES[:4]]
    server.reply = lambda body, attempt: replies[[r["messages"] for r in asked_for].index(body["messages"])]
    found = answers(config(mode="chat"), SAMPLES[:4])
    for mode in ("chat", "text"):
        with open_source(config(mode=mode)) as source:
            assert source.several_calls is (mode == "chat")
    assert found[0] == 'f(a=[1, "x"], b=null)'
    assert found[1].startswith("(not a call) ") and found[1].endswith("\ng()")
    assert found[2:] == ["Which one?", ""]
    assert {asked.path for asked in server.asked} == {"/v1/chat/completions"}
    for asked in server.asked:
        assert {key: asked.body[key] for key in ("messages", "tools")} in asked_for
        assert asked.body.items() >= {"model": "served", "max_tokens": 64, "temperature": 0.0}.items()
        assert "stop" not in asked.body


def test_all_calls_of_a_message_and_its_thought_are_kept_and_thoughts_are_not_sent_back(server, config):
    two = [tool_call("f", '{"a": 1}'), tool_call("g", '{"a": ')]
    server.reply = lambda body, attempt: message(content="Now.", reasoning_content="Hm.", tool_calls=two)
    with open_source(config(mode="chat")) as source:
        (text,) = source(SAMPLES[:1])
        (answer,) = source.native_answers
        assert text.startswith("f(a=1)\n(not a call) ")
        assert (answer.thought, answer.text, answer.calls) == ("Hm.", "Now.", (Call("f", {"a": 1}),))
        assert [bool(attempt.problem) for attempt in answer.attempts] == [False, True]
        said = Message.calling(Call("f", {"a": 1}), thought="Hm.")
        source([replace(SAMPLES[0], messages=(*SAMPLES[0].messages, said, Message("tool", "1")))])
        assert "Hm." not in json.dumps(server.asked[-1].body)
        server.reply = lambda body, attempt: message(content="Just words.")
        assert source(SAMPLES[1:2]) == ["Just words."] and source.native_answers == [None]


def test_conversations_run_every_call_of_a_message(tltrain, server):
    """Each call is answered by its own message; unreadable text is reported to the model and kept."""
    both = [tool_call("no_such_tool", "{}"), tool_call("nor_this_one", '{"a": 1}')]
    replies = iter([message(tool_calls=both), message(tool_calls=[tool_call("f", "{")])])
    finish = message(tool_calls=[tool_call("finish", '{"answer": "done"}')])
    server.reply = lambda body, attempt: next(replies, finish)
    words = ("source=endpoint", f"source.url={server.url}", "source.model=m", "source.mode=chat")
    ran = tltrain("stage=eval", "benchmark=toolworld_multi", "benchmark.size=1", *words)
    (transcript,) = ran.lines("transcripts.jsonl")
    assert [each["kind"] for each in transcript["calls"]] == [
        *("tool_hallucination", "tool_hallucination", "format_error", "correct")
    ]
    roles = [each["role"] for each in transcript["messages"]]
    assert roles == ["user", "assistant", "tool", "tool", "assistant", "tool", "assistant"]
    sent = server.asked[-1].body["messages"]
    assert [len(entry.get("tool_calls", ())) for entry in sent if entry["role"] == "assistant"] == [2, 0]
    assert len({entry["tool_call_id"] for entry in sent if entry["role"] == "tool"}) == 2


def tool_call(name, arguments):
    return {"id": "1", "type": "function", "function": {"name": name, "arguments": arguments}}


def test_answers_come_in_the_samples_order_and_no_more_requests_at_once_than_allowed(server, config):
    count = len(SAMPLES)
    server.reply = lambda body, attempt: Reply(
        completion(BY_PROMPT[body["prompt"]]).content, after=0.02 * (count - NUMBER[body["prompt"]])
    )
    assert answers(config(concurrency=4)) == GOLDEN
    assert server.most_under_way == 4


def test_equal_requests_are_made_once(server, config):
    assert answers(config(cache=False), [SAMPLES[0]] * 3) == GOLDEN[:1] * 3
    assert len(server.asked) == 1


# --- retries ---------------------------------------------------------------------------------------------------------

MISBEHAVIOUR = [
    Reply({"error": {"message": "slow down"}}, status=429, headers={"Retry-After": "1"}),
    Reply("<html>oops</html>", status=500, headers={"Content-Type": "text/html"}),
    Reply("x" * 1000, cut=True),
    Reply(completion("too late").content, after=3),
    Reply('{"choices": [{"text": "no'),
    Reply({"choices": []}),
    Reply({"choices": [{"text": None}]}),
    Reply([]),
    Reply("", status=503),
]


def test_each_misbehaviour_is_survived(server, config):
    def reply(body, attempt):
        number = NUMBER[body["prompt"]]
        return MISBEHAVIOUR[number] if not attempt and number < len(MISBEHAVIOUR) else completion(GOLDEN[number])

    server.reply = reply
    assert answers(config(timeout=1)) == GOLDEN
    assert len(server.asked) == len(SAMPLES) + len(MISBEHAVIOUR)
    first, second = (asked.time for asked in server.asked if NUMBER[asked.body["prompt"]] == 0)
    assert second - first >= 1  # as Retry-After requested


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (MISBEHAVIOUR[1], "sample {id}: HTTP 500: <html>oops</html>; "),
        (MISBEHAVIOUR[2], "sample {id}: no answer: "),
        (MISBEHAVIOUR[3], "sample {id}: nothing came for 1 s (source.timeout); "),
        (MISBEHAVIOUR[4], 'sample {id}: expected a completion in JSON, found \'{{"choices": [{{"text": "no\'; '),
        (Reply({"error": "no such model"}, status=404), "expected source.url to end where /completions follows"),
    ],
    ids=["500", "cut", "hang", "no JSON", "404"],
)
def test_a_persistent_misbehaviour_ends_in_one_line(server, config, reply, said):
    server.reply = lambda body, attempt: reply
    with pytest.raises(TltrainError) as caught:
        answers(config(timeout=1, retries=0), SAMPLES[:1])
    line = str(caught.value)
    assert line.startswith(f"{server.url}, ") and "\n" not in line
    assert said.format(id=SAMPLES[0].id) in line
    assert "; 0 of 1 answers are kept in " in line


def test_a_server_that_is_not_there_ends_in_one_line(config):
    with pytest.raises(TltrainError, match=r"there is no connection to http://127.0.0.1:9: connection refused; is the"):
        answers(config(url="http://127.0.0.1:9/v1"), SAMPLES[:1])


@pytest.mark.parametrize(
    "said",
    [
        "This model's maximum context length is 512 tokens. However, you requested 600 tokens",
        "the request exceeds the available context size, try increasing it",
        "The input (600 tokens) is longer than the model's context length (512 tokens).",
    ],
)
def test_a_prompt_too_long_for_the_server_counts_as_not_answered(server, config, said, caplog):
    server.reply = lambda body, attempt: (
        completion(GOLDEN[0]) if NUMBER[body["prompt"]] == 0 else Reply({"error": {"message": said}}, status=400)
    )
    with open_source(config()) as source:
        assert source(SAMPLES[:3]) == [GOLDEN[0], None, None]
        assert source.too_long == 2
        assert f"2 prompts are too long for served, the first is sample {SAMPLES[1].id}" in caplog.text
        asked = len(server.asked)
        source(SAMPLES[:3])
    assert len(server.asked) == asked + 2  # another server may have room: only answers are cached


# --- the cache of answers --------------------------------------------------------------------------------------------


def test_a_broken_run_goes_on_where_it_stopped(tltrain, server, tmp_path):
    words = ["stage=eval", "source=endpoint", f"source.url={server.url}", "source.model=served", "benchmark.size=12"]
    words += [f"cache.dir={tmp_path / 'cache'}", "source.concurrency=1", "source.retries=0"]
    server.reply = lambda body, attempt: (
        completion(BY_PROMPT[body["prompt"]]) if NUMBER[body["prompt"]] < 5 else Reply("", status=500)
    )
    ran = tltrain(*words, status=1)
    line = ran.err.splitlines()[-1]
    kept = f"5 of 12 answers are kept in {tmp_path / 'cache' / 'endpoint'}; the same command continues from there"
    assert line.startswith(f"{server.url}, sample {SAMPLES[5].id}: ") and line.endswith(kept)
    assert not (ran.folder / "metrics.json").exists()

    server.reply, server.asked = lambda body, attempt: completion(BY_PROMPT[body["prompt"]]), []
    ran = tltrain(*words)
    assert [NUMBER[asked.body["prompt"]] for asked in server.asked] == list(range(5, 12))
    assert [line["prediction"] for line in ran.lines("predictions.jsonl")] == GOLDEN
    assert ran.metrics["model"] == "served" and ran.metrics["source"] == "endpoint"
    assert ran.metrics["toolworld/cf"] == 100

    server.asked = []
    tltrain(*words, "source.concurrency=3")
    assert not server.asked  # the way to reach the server is not part of the question
    tltrain(*words, "stage.max_new_tokens=17")
    assert len(server.asked) == 12


def test_a_damaged_or_unwanted_answer_is_asked_for_again(server, config, tmp_path):
    answers(config(), SAMPLES[:2])
    files = sorted((tmp_path / "cache" / "endpoint").rglob("*.json"))
    assert len(files) == 2 and json.loads(files[0].read_text())["body"] in [asked.body for asked in server.asked]
    files[0].write_text('{"response": {"choi')
    assert answers(config(), SAMPLES[:2]) == GOLDEN[:2]
    assert len(server.asked) == 3
    assert answers(config(cache=False), SAMPLES[:2]) == GOLDEN[:2]
    assert len(server.asked) == 5


def test_without_a_cache_nothing_is_kept(server, config, tmp_path):
    server.reply = lambda body, attempt: Reply("", status=500)
    with pytest.raises(TltrainError, match=r"; no answer is kept \(source.cache=false\)"):
        answers(config(cache=False, retries=0))
    assert not (tmp_path / "cache").exists()


# --- the key, and users' mistakes -------------------------------------------------------------------------------------


def test_the_key_is_sent_and_appears_nowhere(tltrain, server, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", f"{SECRET}\n")
    words = ["stage=eval", "source=endpoint", f"source.url={server.url}", "source.model=served", "benchmark.size=3"]
    words += [
        "source.api_key_env=MY_KEY",
        f"cache.dir={tmp_path / 'cache'}",
        "source.retries=0",
        "source.concurrency=1",
    ]
    server.reply = lambda body, attempt: (
        completion(BY_PROMPT[body["prompt"]])
        if NUMBER[body["prompt"]] == 0
        else Reply({"error": {"message": f"the key {SECRET} is wrong"}}, status=401)
    )
    failed = tltrain(*words, folder=tmp_path / "failed", status=1)
    assert (
        "the key <masked> is wrong" in failed.err and "environment variable MY_KEY (source.api_key_env)" in failed.err
    )
    server.reply = lambda body, attempt: completion(BY_PROMPT[body["prompt"]])
    ended = tltrain(*words, folder=tmp_path / "ended")
    assert {asked.headers["authorization"] for asked in server.asked} == {f"Bearer {SECRET}"}
    assert SECRET not in failed.out + failed.err + ended.out + ended.err
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 8 and not [path for path in files if SECRET.encode() in path.read_bytes()]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "source=endpoint asks a server: give source.url=http://localhost:8000/v1"),
        (["source.url=http://localhost/v1"], "source=endpoint asks a server: give source.model=NAME"),
        (["source.url=localhost:8000", "source.model=m"], "source.url: expected http://HOST:PORT/v1"),
        (["source.url=http://me:word@localhost/v1", "source.model=m"], "source.url: expected http://HOST:PORT/v1, or"),
        (
            ["source.url=http://localhost/v1", "source.model=m", "source.api_key_env=sk-1"],
            "source.api_key_env: expected the name of an environment variable, not the key itself",
        ),
        (["source.timeout=0"], "source.timeout: expected a number from 1 to 86400, found 0"),
        (["source.mode=tools"], "source.mode: Invalid value 'tools', expected one of"),
        (["source.modell=x"], "source.modell: no such key; did you mean model?"),
        (["source=vllm"], "source=vllm: no such choice; there are: endpoint, golden, model, random"),
    ],
)
def test_mistakes_end_in_one_line(tltrain, words, said):
    (line,) = tltrain("stage=eval", "source=endpoint", "benchmark.size=2", *words, status=1).err.splitlines()
    assert line.startswith(said) and "word@" not in line


def test_a_missing_package_is_named(config, monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(TltrainError, match=r"needs the package openai: pip install 'tltrain\[endpoint\]'"):
        answers(config())


def test_an_endpoint_needs_no_torch(server, tmp_path):
    words = ["stage=eval", "source=endpoint", f"source.url={server.url}", "source.model=served", "benchmark.size=2"]
    words += ["+source.extra.top_k=1", "hydra.run.dir=run", "tracking=none"]
    ran = process([sys.executable, "-c", PROBE, *words], tmp_path, PYTHONPATH=pythonpath())
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.endswith("loaded: []\n")
    assert {asked.body["top_k"] for asked in server.asked} == {1}


def pythonpath() -> str:
    """Return the import path of this process, with this checkout's package first."""
    return ":".join([str(ROOT), *filter(None, sys.path)])

"""source=endpoint against hostile servers: none blocks a run for ever, fills memory, or gets another server's key."""

from __future__ import annotations

import gzip
import itertools
import json
import time

import pytest

from tests.support.fake_endpoint import Reply, completion, endpoint_config, message, serving
from tltrain import sources, toolworld
from tltrain.errors import TltrainError
from tltrain.formats.calls import render_call
from tltrain.sources import open_source
from tltrain.trajectory import example

pytest.importorskip("openai")

SAMPLES = list(toolworld.samples(4, 0))
GOLDEN = [render_call(example(sample.goldens[0])) for sample in SAMPLES]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
SECRET = "sk-secret-of-the-user"


@pytest.fixture
def server():
    with serving() as server:
        yield server


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)


@pytest.fixture
def ask(server, tmp_path):
    """`ask(reply, count, mode="chat", ...)` returns answers to some samples if the server always replies `reply`."""

    def make(reply, count=1, **source):
        server.reply = lambda body, attempt: reply(body) if callable(reply) else reply
        cfg = endpoint_config(server.url, tmp_path / "cache", **{"retries": 0, "max_response_size": 0.1} | source)
        with open_source(cfg) as opened:
            return opened(SAMPLES[:count]), opened

    return make


@pytest.fixture
def refused(ask):
    """`refused(reply, ...)` returns the one line that ends the run."""

    def make(reply, **source):
        began = time.monotonic()
        with pytest.raises(TltrainError) as caught:
            ask(reply, **source)
        assert time.monotonic() - began < 3
        line = str(caught.value)
        assert "\n" not in line and line.isprintable() and SECRET not in line
        return line

    return make


# --- without an end --------------------------------------------------------------------------------------------------


def drops(head, seconds=0.05):
    yield head
    while True:
        time.sleep(seconds)
        yield b" "


def test_a_server_that_sends_a_byte_now_and_then_ends_the_run(refused):
    for head in (HEAD + b"\r\n", HEAD + b"X: "):
        line = refused(Reply(raw=drops(head)), total_timeout=0.3, retries=6)
        assert "no whole answer in 0.3 s (source.total_timeout)" in line


def test_retries_end_with_the_total_time(refused):
    line = refused(Reply("", status=503), total_timeout=0.3, retries=6)
    assert "no whole answer in 0.3 s (source.total_timeout)" in line


@pytest.mark.parametrize("status", [b"200 OK", b"500 Oops", b"400 Bad"])
def test_a_body_without_an_end_ends_the_run(server, refused, status):
    reply = Reply(raw=itertools.chain([b"HTTP/1.1 " + status + b"\r\n\r\n"], itertools.repeat(b"x" * 10_000)))
    assert "the response is longer than 0.1 MB (source.max_response_size)" in refused(reply, retries=6)
    assert len(server.asked) == 1


def test_a_small_body_that_inflates_ends_the_run(refused):
    bomb = gzip.compress(b" " * 10_000_000)
    head = HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    assert len(bomb) < 100_000
    assert "longer than 0.1 MB (source.max_response_size)" in refused(Reply(raw=[head, bomb]))


@pytest.mark.parametrize(
    "raw",
    [
        itertools.chain([HEAD], (b"X-%d: %s\r\n" % (n, b"x" * 10_000) for n in itertools.count())),
        itertools.chain([HEAD + b"X: "], itertools.repeat(b"x" * 10_000)),
        [HEAD + b"Content-Encoding: " + b"gzip," * 5_000 + b"gzip\r\nContent-Length: 2\r\n\r\n{}"],
        [HEAD + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}"],
        [HEAD + b'Transfer-Encoding: chunked\r\n\r\n5\r\n{"cho'],
        [HEAD + b'Content-Length: 500\r\n\r\n{"cho'],
        [b"no HTTP at all\r\n\r\n"],
        [],
    ],
    ids=["headers", "a header", "encodings", "no gzip", "a chunk", "a body", "no HTTP", "nothing"],
)
def test_a_response_that_is_none_ends_in_one_line(refused, raw):
    assert f"sample {SAMPLES[0].id}: no answer: " in refused(Reply(raw=raw))


def test_a_limit_is_far_above_an_ordinary_answer(ask):
    assert ask(completion(GOLDEN[0]), max_response_size=0.001)[0] == GOLDEN[:1]


# --- elsewhere -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_neither_question_nor_key_goes_to_another_origin(server, refused, status):
    with serving() as other:
        line = refused(Reply("", status=status, headers={"Location": f"{other.url}/completions"}), retries=6)
        assert (
            f"redirects to {other.url}/completions: another origin, to which neither the question nor the key" in line
        )
        assert not other.asked and len(server.asked) == 1


def test_a_redirect_of_the_same_origin_is_not_followed(server, refused):
    line = refused(Reply("", status=308, headers={"Location": "/v2/completions"}), retries=6)
    assert f"{server.url.removesuffix('/v1')}/v2/completions: redirects are not followed; expected source.url" in line
    assert len(server.asked) == 1
    line = refused(Reply("", status=302, headers={"Location": "http://[::1"}))
    assert "redirects to an invalid address" in line


def test_a_server_that_is_not_running_is_told_of_before_anything_is_loaded(tltrain, tmp_path, monkeypatch):
    from tltrain.evaluation import benchmarks

    monkeypatch.setattr(benchmarks, "load", lambda *args: pytest.fail("data is read first"))
    words = ["stage=eval", "source=endpoint", "source.url=http://127.0.0.1:9/v1", "source.model=served"]
    began = time.monotonic()
    (line,) = tltrain(*words, f"cache.dir={tmp_path / 'cache'}", status=1).err.splitlines()
    assert time.monotonic() - began < 5
    assert line == (
        "http://127.0.0.1:9/v1: there is no connection to http://127.0.0.1:9: connection refused; is the server "
        "running, and source.url its address?"
    )


def test_a_server_without_tls_is_told_of(refused):
    with serving() as other:
        line = refused(Reply(""), url=other.url.replace("http:", "https:"), retries=6)
    assert "TLS failed" in line and "see whether source.url begins with http:// or https://" in line


def test_answers_that_are_kept_need_no_server(tmp_path):
    with serving() as gone:
        gone.reply = lambda body, attempt: completion(GOLDEN[0])
        cfg = endpoint_config(gone.url, tmp_path / "cache")
        with open_source(cfg) as source:
            source(SAMPLES[:1])
    sources.check(cfg)
    with open_source(cfg) as source:
        assert source(SAMPLES[:1]) == GOLDEN[:1]
        with pytest.raises(TltrainError, match=r"connection refused; .*; 1 of 2 answers are kept in "):
            source(SAMPLES[:2])
    with pytest.raises(TltrainError, match="connection refused"):
        sources.check(endpoint_config(gone.url, tmp_path / "cache", cache=False))


# --- responses that are not completions ------------------------------------------------------------------------------


DEEP = "[" * 300 + "]" * 300
DEEPER = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "expected a completion in JSON, found ''"),
        ("null", "expected a completion in JSON, found 'null'"),
        ('{"choices": null}', "expected a completion in JSON"),
        ('{"choices": []}', "expected a completion in JSON"),
        ('{"choices": {"0": 1}}', "expected a completion in JSON"),
        ('{"choices": [null]}', "expected a completion in JSON"),
        ('{"choices": [{"text": NaN}]}', "expected a completion in JSON"),
        ('{"choices": [{"text": ["f()"]}]}', "expected a completion in JSON"),
        (DEEPER, "expected a completion in JSON"),
        ('{"choices": [{"text": "f()", "logprobs": ' + DEEPER[:60_000], "expected a completion in JSON"),
        ('{"error": {"message": "overloaded"}}', "the server answers with an error in place of a completion: "),
        ("<!DOCTYPE html><p>Sign in", "; a web page: expected source.url to be the API's address"),
        ("\x1b[2J\x1b]0;owned\x07\u202e", "expected a completion in JSON, found '[2J ]0;owned'"),
    ],
)
def test_a_body_that_is_no_completion_ends_in_one_line(refused, content, said):
    assert said in refused(Reply(content), max_response_size=1)


def test_a_completion_with_deep_nesting_is_taken_or_refused_in_one_line(ask):
    """There is a depth that can just be read but no longer be written to the cache."""
    taken = []
    for depth in range(880, 1000, 40):
        reply = Reply('{"choices": [{"text": "f()"}], "more": ' + "[" * depth + "]" * depth + "}")
        try:
            taken.append(ask(reply, extra={"depth": depth})[0] == ["f()"])
        except TltrainError as error:
            assert "expected a completion in JSON" in str(error)
            taken.append(False)
    assert taken == sorted(taken, reverse=True) and not taken[-1]


@pytest.mark.parametrize("kind", ["text/html", "application/json; charset=base64", "a/b; charset=utf-16", "\xff"])
def test_json_is_read_as_utf_8_whatever_it_is_called(ask, kind):
    reply = Reply({"choices": [{"text": "f(a='ü')"}]}, headers={"Content-Type": kind})
    assert ask(reply)[0] == ["f(a='ü')"]
    data = b'{"choices": [{"text": "f(a=\'\xff\')"}]}'
    raw = HEAD + b"Content-Length: %d\r\n\r\n" % len(data)
    assert ask(Reply(raw=[raw, data]), extra={"other": 1})[0] == ["f(a='\N{REPLACEMENT CHARACTER}')"]


def test_a_server_that_asks_to_wait_for_hours_is_not_waited_for(server, refused):
    line = refused(Reply({"error": "slow down"}, status=429, headers={"Retry-After": "7200"}), retries=6)
    assert "HTTP 429" in line and "a lower source.concurrency asks less at a time" in line
    assert len(server.asked) == 1


# --- a field that the server does not take ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "source", "remedy"),
    [
        (
            "Unsupported parameter: 'max_tokens' is not supported here. Use 'max_completion_tokens' instead.",
            {},
            "source.limit_field=max_completion_tokens uses another name for the limit",
        ),
        (
            "Unrecognized request argument supplied: max_completion_tokens",
            {"limit_field": "max_completion_tokens"},
            "source.limit_field=max_tokens uses another name for the limit",
        ),
        (
            "Unsupported value: 'temperature' does not support 0.0 with this model. Only the default (1) is supported.",
            {},
            "source.temperature=null leaves it to the server",
        ),
        ("seed: Extra inputs are not permitted", {"temperature": 1}, "source.extra.seed=null leaves it out"),
        ("Unsupported parameter: 'stop'", {}, "source.extra.stop=null leaves it out"),
        ("max_tokens: expected a value up to 16, found an invalid one", {}, "see stage.max_new_tokens"),
    ],
)
def test_a_rejected_field_is_told_with_the_key_that_replaces_it(server, refused, said, source, remedy):
    line = refused(Reply({"error": {"message": said}}, status=400), retries=6, **source)
    assert f"; {remedy}" in line and "HTTP 400: " in line
    assert len(server.asked) == 1


def test_the_field_of_the_limit_is_a_key(server, ask):
    ask(completion("f()"), limit_field="max_completion_tokens")
    assert server.asked[0].body["max_completion_tokens"] == 64 and "max_tokens" not in server.asked[0].body


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (
            400,
            "The maximum context length is 512 tokens. 'max_tokens' or 'max_completion_tokens' is too large",
        ),
        (400, "The input token count (600) exceeds the maximum number of tokens allowed (512)."),
        (422, "`inputs` tokens + `max_new_tokens` must be <= 512. Given: 500 `inputs` tokens and 64 `max_new_tokens`"),
    ],
)
def test_a_prompt_that_is_too_long_is_no_rejected_field(ask, status, said):
    texts, source = ask(Reply({"error": {"message": said}}, status=status))
    assert texts == [None] and source.too_long == 1


# --- why an answer ended ---------------------------------------------------------------------------------------------


def test_why_answers_ended_is_counted_and_told(server, ask, caplog):
    replies = [
        completion(f"{GOLDEN[0]} and more", "length"),
        completion("search(q='lo", "length"),
        Reply({"choices": [{"text": None, "finish_reason": "content_filter"}]}),
        completion(GOLDEN[3], "abort"),
    ]
    prompts = iter(replies)
    texts, source = ask(lambda body: next(prompts), 4, concurrency=1)
    assert texts == [GOLDEN[0], "search(q='lo", "", GOLDEN[3]]
    assert source.endings.last == ["stop", "length", "content_filter", "other"]  # the first has its call
    assert source.reading() == {"finish_reasons": {"stop": 1, "length": 1, "content_filter": 1, "other": 1}}
    assert "1 of 4 (25.0 %) answers were cut at stage.max_new_tokens=64 before a call could be read" in caplog.text
    assert "1 of 4 (25.0 %) answers were withheld or cut by the server's content filter" in caplog.text
    assert "1 of 4 (25.0 %) answers ended for a reason that OpenAI's API does not define" in caplog.text


@pytest.mark.parametrize("reason", [None, [], {"a": 1}, 7, "x" * 1000])
def test_a_reason_that_is_no_word_is_no_reason_to_fail(ask, reason):
    texts, source = ask(Reply({"choices": [{"text": "f()", "finish_reason": reason}]}))
    assert texts == ["f()"] and set(source.endings.last) <= {"", "other"}


def test_why_answers_ended_is_in_the_results(tltrain, server, tmp_path):
    server.reply = lambda body, attempt: completion("search(q='lo", "length")
    words = ["stage=eval", "source=endpoint", f"source.url={server.url}", "source.model=served", "benchmark.size=2"]
    ran = tltrain(*words, f"cache.dir={tmp_path / 'cache'}")
    assert ran.metrics["finish_reasons"] == {"length": 2}
    assert ran.metrics["details"]["toolworld"]["finish_reasons"] == {"length": 2}
    assert [line["finish_reason"] for line in ran.lines("predictions.jsonl")] == ["length", "length"]
    assert "2 of 2 (100.0 %) answers were cut at stage.max_new_tokens=256" in " ".join(ran.err.split())


# --- calls, as servers return them -----------------------------------------------------------------------------------


def test_a_legacy_function_call_and_arguments_that_are_no_text_are_read(ask):
    assert ask(message(function_call={"name": "f", "arguments": '{"a": 1}'}), mode="chat")[0] == ["f(a=1)"]
    legacy = message(content="", tool_calls=[], function_call={"name": "f", "arguments": {"a": [1]}})
    assert ask(legacy, mode="chat", extra={"a": 1})[0] == ["f(a=[1])"]
    calls = [{"function": {"name": "f", "arguments": {"a": None}}}, {"function": {"name": "g", "arguments": None}}]
    assert ask(message(tool_calls=calls), mode="chat", extra={"b": 1})[0] == ["f(a=null)\ng()"]


NAME = SAMPLES[0].tools[0].name


@pytest.mark.parametrize(
    "content",
    [
        f'Sure.\n<tool_call>\n{{"name": "{NAME}", "arguments": {{}}}}\n</tool_call>',
        f'<function={NAME}>{{"a": 1}}</function>',
        f'[TOOL_CALLS][{{"name": "{NAME}", "arguments": {{}}}}]',
        f'{{"name": "{NAME}", "parameters": {{"a": "b"}}}}',
        f'```json\n[{{"type": "function", "function": {{"name": "{NAME}", "arguments": {{}}}}}}]\n```',
    ],
)
def test_calls_that_a_server_left_in_the_text_are_told_of_in_one_line(ask, caplog, content):
    texts, source = ask(message(content=content), mode="chat")
    assert texts == [content]
    (line,) = [record.getMessage() for record in caplog.records if "tool parser" in record.getMessage()]
    assert line.startswith(f"1 of 1 (100.0 %) answers hold a tool call as text, the first is sample {SAMPLES[0].id}: ")
    assert "the server's tool parser is off" in line and "--enable-auto-tool-choice --tool-call-parser NAME" in line
    assert source.reading()["unparsed_tool_calls"] == 1


@pytest.mark.parametrize("content", ["No tool fits.", '{"name": "Ann", "age": 3}', "{", "[]", "[1]", '{"name": null}'])
def test_other_text_and_other_json_are_no_calls(ask, caplog, content):
    ask(message(content=content), mode="chat")
    assert "tool parser" not in caplog.text


def test_ten_thousand_calls_are_read_in_a_second(ask):
    calls = [{"function": {"name": "f", "arguments": "{}"}}] * 10_000
    began = time.process_time()
    ((text,), _) = ask(message(tool_calls=calls), mode="chat", max_response_size=20)
    assert text.count("f()") == 10_000 and time.process_time() - began < 1


def test_arguments_that_are_no_json_or_nested_too_deep_are_marked(ask):
    for number, arguments in enumerate(["{", '{"a": NaN}', '{"a": ' + DEEP + "}", "[1]", DEEPER[:40_000]]):
        reply = message(tool_calls=[{"function": {"name": "f", "arguments": arguments}}])
        ((text,), _) = ask(reply, mode="chat", extra={"n": number}, max_response_size=1)
        assert text.startswith("(not a call) ") and json.dumps(arguments)[1:20] in text

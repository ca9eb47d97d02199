"""What counts as a secret, in which forms it is found, and what stays unmasked: pure functions."""

from __future__ import annotations

import base64
import html
import io
import json
import logging
import os
import pickle
import re
import sys
from urllib.parse import quote, quote_plus

import pytest
import yaml
from omegaconf import OmegaConf

from tests.support.composition import composed
from tests.support.configuration_keys import paths
from tltrain import config
from tltrain.entry import arguments
from tltrain.runtime import redact, runs, terminal
from tltrain.runtime.secret_words import MASK, masked, names_secret, variable_names_secret

SECRET = "Zq7/kx+Wv9=pLm&t\"4'<r"
"""With characters that URLs, JSON, HTML and shells encode."""


@pytest.fixture(autouse=True)
def nothing_learned(monkeypatch):
    monkeypatch.setattr(redact, "_learned", set())


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *(
            "api_key",
            "apiKey",
            "api-key",
            "X-Api-Key",
            "openai_api_key",
            "key_password",
            "azure_client_secret",
            "passwd",
        ),
        *("token", "hub_token", "accessToken", "HF_TOKEN", "GITHUB_TOKEN", "Authorization", "Proxy-Authorization"),
        *("bearer", "Set-Cookie", "cookies", "credentials", "db_pwd", "AWS_SECRET_ACCESS_KEY", "aws_access_key_id"),
        *("private_key", "passphrase", "client_secrets", "connection_string", "session_token", "x-auth-token"),
    ],
)
def test_names_of_secrets(name):
    assert names_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "pad_token",
            "eos_token",
            "bos_token_id",
            "eos_token_id",
            "max_new_tokens",
            "key_tokens",
            "tokens_per_second",
        ),
        *(
            "num_tokens",
            "tokens",
            "tokenizer",
            "tokenizer_class",
            "special_tokens",
            "mask_token",
            "image_token",
            "token_id",
        ),
        *(
            "additional_special_tokens",
            "add_special_tokens",
            "api_key_env",
            "key",
            "keys",
            "monkey",
            "keyboard",
            "author",
        ),
        *(
            "secretary",
            "cookie_file",
            "credentials_path",
            "api_key_header",
            "password_required",
            "compass",
            "prompt_key",
        ),
        *("first_token", "fim_prefix_token", "auth_type", "key_token_loss", "signature"),
    ],
)
def test_names_that_only_look_so(name):
    assert not names_secret(name, "x")


def test_a_name_that_may_be_anything_is_decided_by_what_looks_random():
    assert names_secret("router_key", "a8Kd03mcZ91kd0aa") and not names_secret("router_key", "messages")
    assert not names_secret("boi_token", "<begin_of_image>")


def test_no_key_of_ours_and_few_arguments_of_the_libraries_are_taken_for_secrets():
    ours = [path for place, schema in config.SCHEMAS.items() for path, _ in paths(schema, place)]
    assert len(ours) > 200 and not [path for path in ours if names_secret(path.rpartition(".")[2], "a8Kd03mcZ91kd0aa")]
    theirs = {name for kind in arguments.ARGUMENTS.values() for name in arguments.library_fields(kind)}
    assert {name for name in theirs if names_secret(name)} == {"hub_token"}


def test_variables_that_name_a_secret():
    named = ("WANDB_API_KEY", "HF_TOKEN", "MYSQL_PWD", "GPG_KEY", "MY_PAT", "SIGNING_KEY_2", "DOCKER_AUTH_TOKEN")
    assert all(map(variable_names_secret, named))
    others = (
        "PWD",
        "OLDPWD",
        "TOKENIZERS_PARALLELISM",
        "SSH_AUTH_SOCK",
        "PATH",
        "KEYBOARD",
        "API_KEY_FILE",
        "PAD_TOKEN",
    )
    assert not any(map(variable_names_secret, others))


@pytest.mark.parametrize("stage", config.STAGES)
def test_the_configuration_of_a_stage_is_not_changed(stage):
    """Covers every stage: patterns of errors, prompts and settings of tokenizers contain no secret."""
    cfg = composed(f"stage={stage}")
    assert redact.config(cfg) == config.plain(cfg, enum_to_str=True) and not redact._learned


# --- text -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "without"),
    [
        ("+source.extra.api_key=ab n=3", f"+source.extra.api_key={MASK} n=3"),
        ("api_key=ab,seed=3", f"api_key={MASK},seed=3"),
        ("api_key=ab: expected key=value", f"api_key={MASK}: expected key=value"),
        ("api_key=k1,k2 seed=1", f"api_key={MASK} seed=1"),
        ("f(password='a b', n=3)", f"f(password='{MASK}', n=3)"),
        ("+source.extra={api_key:ab,n:3}", f"+source.extra={{api_key:{MASK},n:3}}"),
        ('{"api_key": "a\\"b", "n": "c"}', f'{{"api_key": "{MASK}", "n": "c"}}'),
        ('"{\\"token\\": \\"ab\\", \\"n\\": 1}"', f'"{{\\"token\\": \\"{MASK}\\", \\"n\\": 1}}"'),
        ("{'Authorization': 'Bearer ab.cd'}", f"{{'Authorization': '{MASK}'}}"),
        ("Authorization: Basic dXNlcjpwYXNz next", f"Authorization: {MASK} next"),
        ("Cookie: a=b; c=d", f"Cookie: {MASK}"),
        ("x-api-key: 1", f"x-api-key: {MASK}"),
        ("http://user:pass@host:80/v1", f"http://{MASK}@host:80/v1"),
        ("http://user:pa/ss@host/v1", f"http://{MASK}@host/v1"),
        ("https://token@host/v1", f"https://{MASK}@host/v1"),
        ("https://host/v1?n=1&key=ab&sig=cd#x", f"https://host/v1?n=1&key={MASK}&sig={MASK}#x"),
        ("curl --api-key ab -n 3", f"curl --api-key {MASK} -n 3"),
        ("found sk-abcdefghijklmnop1234.", f"found {MASK}."),
        ("hf_abcdefghijklmnop1234", MASK),
        ("ghp_abcdefghijklmnop12345678 AKIAABCDEFGHIJKLMNOP", f"{MASK} {MASK}"),
        ("got eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY.sig", f"got {MASK}"),
        ("Bearer ab12cd34", f"Bearer {MASK}"),
        ("${oc.env:MY_TOKEN,ab}", f"${{oc.env:MY_TOKEN,{MASK}}}"),
    ],
)
def test_text_that_names_a_secret_is_masked(words, without):
    assert redact.text(words) == without
    assert redact.text(without) == without


@pytest.mark.parametrize(
    "words",
    [
        "stage.args.hub_token: this is set by the environment variable HF_TOKEN",
        "api_key=${oc.env:OPENAI_API_KEY} Authorization: Bearer ${oc.env:KEY}",
        "pad_token='<pad>', max_new_tokens=5, key_tokens=name, tokens_per_second=12.5, eos_token_id: 2",
        "source.api_key_env=OPENAI_API_KEY",
        "http://127.0.0.1:9/v1?model=a@b ssh to host: a:b@c",
        "Bearer authentication and basic knowledge of the token: expected a string, found 3",
        "outputs/task-learning-rate-warmup/sk-learn",
        "{'tokens': [1, 2], 'key': 'value'} model/config.json a=b",
        "cannot connect to host:8000/v1, ssh://host/path@2",
    ],
)
def test_other_text_is_left(words):
    assert redact.text(words) == words


def test_text_takes_time_in_proportion_to_its_length():
    for piece in ("a", "a.", "a=", "a,", "{a", "http://", "Cookie: a; ", "a:b@", '"a": ', "Bearer ", "--a ", "\\"):
        masked(piece * (50_000 // len(piece)))  # a quadratic pattern takes minutes here


# --- containers -------------------------------------------------------------------------------------------------------


def test_containers_are_masked_by_key_at_any_depth():
    given = {
        "api_key": "a",
        "password": 1234,
        "headers": {"Authorization": "Bearer a", "Accept": "b", "Cookie": ["c", "d"]},
        "credentials": {"user": "a", "parts": ["b", 3, None, True]},
        "list": [{"client_secret": "a"}, ["X-Api-Key", "a"], ["run", "--token", "a"], {"name": "Cookie", "value": "a"}],
        "token": None,
        "use_auth_token": True,
        "words": "+x.api_key=a",
        "eos_token": "</s>",
        "reference": {"api_key": "${oc.env:KEY}", "token": "Bearer ${oc.env:KEY}", "secret": "${oc.env:KEY,abc}"},
    }
    assert redact.container(given) == {
        "api_key": MASK,
        "password": MASK,
        "headers": {"Authorization": MASK, "Accept": "b", "Cookie": [MASK, MASK]},
        "credentials": {"user": MASK, "parts": [MASK, MASK, None, True]},
        "list": [
            {"client_secret": MASK},
            ["X-Api-Key", MASK],
            ["run", "--token", MASK],
            {"name": "Cookie", "value": MASK},
        ],
        "token": None,
        "use_auth_token": True,
        "words": f"+x.api_key={MASK}",
        "eos_token": "</s>",
        "reference": given["reference"] | {"secret": f"${{oc.env:KEY,{MASK}}}"},
    }


def test_what_is_data_keeps_its_parameters_and_loses_known_values():
    redact.learn("Bearer known-secret")
    given = {"token": "a", "call": 'login(password="b", key="known-secret")', "known-secret": 1}
    assert redact.known_in(given) == {"token": "a", "call": f'login(password="b", key="{MASK}")', MASK: 1}


# --- values -----------------------------------------------------------------------------------------------------------

FORMS = {
    "plain": lambda s: s,
    "url": lambda s: quote(s, safe=""),
    "url, slashes kept": quote,
    "url, lower case": lambda s: re.sub("%..", lambda code: code[0].lower(), quote(s, safe="")),
    "form": quote_plus,
    "json": lambda s: json.dumps({"a": s}),
    "json in json": lambda s: json.dumps(json.dumps({"a": s})),
    "json with slashes": lambda s: json.dumps(s).replace("/", "\\/"),
    "html": html.escape,
    "jinja": lambda s: html.escape(s).replace("&#x27;", "&#39;").replace("&quot;", "&#34;"),
    "python": lambda s: repr([s]),
    "base64": lambda s: base64.b64encode(s.encode()).decode(),
    "base64 for URLs": lambda s: base64.urlsafe_b64encode(s.encode()).decode(),
    **{
        f"base64 behind {n}": lambda s, n=n: base64.b64encode(b"u" * n + f"{s}, and more".encode()).decode()
        for n in (1, 2, 3, 4)
    },
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("secret", [SECRET, "plain-secret-1234", "ünïcode-gëheim"])
def test_a_known_value_is_masked_in_every_form_that_a_server_may_repeat(form, secret):
    redact.learn(secret)
    written = FORMS[form](secret)
    assert MASK in redact.known(f"before {written} behind")
    inner = written.strip("\"'=")
    assert inner not in redact.known(f"before {written} behind")


def test_short_values_and_ordinary_words_are_masked_by_their_key_alone(monkeypatch):
    monkeypatch.setenv("A_TOKEN", "the")
    monkeypatch.setenv("DB_PASSWORD", "password")
    redact.begin(["+source.extra.api_key=abc", "+source.extra.token=toolworld", "+a.secret=true", "+a.pwd=1234567"])
    line = "the password of abc in toolworld is true: 1234567"
    assert redact.known(line) == line
    assert redact.text("token=toolworld password=password") == f"token={MASK} password={MASK}"


def test_digits_are_masked_where_they_are_no_number():
    redact.learn("12345678")
    line = '{"loss": 0.12345678, "tokens": 12345678, "all": [12345678], "sum": 912345678, "pin": "12345678"}'
    assert redact.known(line) == line.replace('"12345678"', f'"{MASK}"')
    assert redact.known("pin 12345678.") == f"pin {MASK}."


def test_a_folder_that_a_variable_names_is_no_secret(monkeypatch, tmp_path):
    monkeypatch.setenv("CREDENTIALS", str(tmp_path))
    assert redact.text(f"{tmp_path}/file") == f"{tmp_path}/file"


@pytest.mark.parametrize(
    "word",
    [
        "+source.extra.api_key=planted-value",
        "+source.extra.api_key='planted-value'",
        "+source.extra.api_key=other-value-1,planted-value",
        "+source.extra={api_key:planted-value,n:1}",
        "+source.extra={headers:{authorization:'Bearer planted-value'}}",
        "+source.extra={authorization:Bearer planted-value",  # no override: Hydra's error quotes parts of it
        "+source.extra.headers.authorization=Bearer planted-value",
        "source.url=http://user:planted-value@host/v1",
        "source.url=http://planted-value@host/v1",
        "source.url='http://host/v1?api_key=planted-value&n=1'",
        "+source.extra.any=${oc.env:NO_SUCH_TOKEN,planted-value}",
        "++credentials.user=planted-value",
    ],
)
def test_values_are_learned_from_the_command_line(word):
    redact.begin([word])
    assert redact.known("the server says planted-value") == f"the server says {MASK}"


def test_values_are_learned_from_a_configuration_and_what_it_refers_to(monkeypatch):
    monkeypatch.setenv("NEUTRAL", "value-of-neutral")
    monkeypatch.setenv("CORPORATE", "value-of-corporate")
    cfg = {
        "api_key": "${oc.env:NEUTRAL}",
        "api_key_env": "CORPORATE",
        "there": {"password": "${here.any}"},
        "here": {"any": "referred-to"},
        "credentials": {"user": "john.smith", "type": "service"},
        "url": "https://me:in-a-url@host",
    }
    redact.learn_config(OmegaConf.create(cfg))
    assert redact.known("john.smith and service") == "john.smith and service"
    values = "value-of-neutral value-of-corporate referred-to in-a-url"
    assert redact.known(values) == " ".join([MASK] * 4)
    assert redact.known("me https host any") == "me https host any"


# --- writers ----------------------------------------------------------------------------------------------------------


def test_files_of_a_run_stay_what_they_are(tmp_path):
    redact.begin(["+a.api_key=12345678", "+a.token=known-secret"])
    runs.write_json(tmp_path / "a.json", {"n": 12345678, "text": "key 12345678", "rows": [("known-secret", 1.5)]})
    assert json.loads((tmp_path / "a.json").read_text()) == {
        "n": 12345678,
        "text": f"key {MASK}",
        "rows": [[MASK, 1.5]],
    }
    runs.write_lines(tmp_path / "b.jsonl", [json.dumps({"n": 12345678, "text": "known-secret"})])
    assert json.loads((tmp_path / "b.jsonl").read_text()) == {"n": 12345678, "text": MASK}


def test_a_stream_masks_what_was_learned_after_it_was_opened(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", out)
    redact.install()
    redact.install()
    redact.learn("known-secret")
    print("a known-secret", end="")
    terminal.table("title", ["a"], [["x" * 150 + "known-secret"]])
    assert out.getvalue().startswith(f"a {MASK}") and "secret" not in out.getvalue()
    assert not isinstance(sys.stdout._file, redact.Stream)


def test_a_log_masks_messages_tracebacks_and_stacks(monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "marker-of-mine")
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.addFilter(redact.Filter())
    log = logging.Logger("a")
    log.addHandler(handler)
    try:
        value = os.environ["MY_TOKEN"]
        raise ValueError(f"{value} in api_key=ab12")
    except ValueError:
        log.exception("it is %s", value)
    log.info("here", stack_info=True)  # marker-of-mine
    assert "marker-of-mine" not in out.getvalue() and out.getvalue().count(MASK) >= 3 and "ab12" not in out.getvalue()
    assert "Traceback" in out.getvalue() and "Stack (most recent call last)" in out.getvalue()


def test_yaml_is_masked_and_keeps_references():
    redact.install()
    written = OmegaConf.to_yaml(
        OmegaConf.create({"api_key": "a", "b": {"token": "${oc.env:X}", "c": [1, "${b.token}"]}})
    )
    assert yaml.safe_load(written) == {"api_key": MASK, "b": {"token": "${oc.env:X}", "c": [1, "${b.token}"]}}


WORDS = ["a word " * 40, "x" * 200, "1e5", "on", "~", "a: b", "- a", " '\"#\n", "é 😀", "\x85", "\ud800", "a\\n"]


@pytest.mark.parametrize("text", WORDS, ids=range(len(WORDS)))
def test_yaml_is_written_as_omegaconf_writes_it(text):
    plain = {"a": {"b": [text, [], {}, None, True, 1, 1e-6, 1e20]}, "c": text, "d": ["${a.b}", [text]]}
    assert redact.as_yaml(plain) == redact._yaml(OmegaConf.create(plain))
    assert redact.as_yaml([text]) == redact._yaml(OmegaConf.create([text]))
    assert redact.as_yaml(plain, sort_keys=True) == redact._yaml(OmegaConf.create(plain), sort_keys=True)


def test_the_process_that_a_launcher_starts_masks_what_hydra_writes_there(monkeypatch):
    from tltrain.sweeps.callback import SweepCallback

    sent = pickle.dumps(SweepCallback())
    monkeypatch.setattr(OmegaConf, "to_yaml", redact._yaml)
    pickle.loads(sent)
    assert (
        OmegaConf.to_yaml(OmegaConf.create({"api_key": "abcdefg", "b": "is abcdefg"}))
        == f"api_key: {MASK}\nb: is {MASK}\n"
    )

"""Mistakes in the words of a command line end in one line that gives the correct word."""

from __future__ import annotations

import shlex

import pytest

from tests.support.composition import mistake
from tltrain.entry import words
from tltrain.errors import TltrainError

MISTAKES = [
    # flags
    ("--stage pkt", "--stage pkt: choices and keys have no dashes: stage=pkt"),
    ("--stage=pkt", "--stage=pkt: choices and keys have no dashes: stage=pkt"),
    ("--seed 3 stage=pkt", "--seed 3: choices and keys have no dashes: seed=3"),
    ("--model.lora.r=8", "--model.lora.r=8: choices and keys have no dashes: model.lora.r=8"),
    ("--experiment smoke", "--experiment smoke: choices and keys have no dashes: +experiment=smoke"),
    ("--multrun", "--multrun: no such flag; did you mean --multirun?"),
    ("--cfg all_of_it", "argument --cfg/-c: invalid choice: 'all_of_it'"),
    ("--cfg", "argument --cfg/-c: expected one argument"),
    ("–m stage=pkt", "–m begins with en dash, which is not a hyphen: -m"),
    ("—multirun", "—multirun begins with em dash, which is not a hyphen: --multirun"),
    ("—stage=pkt", "—stage=pkt begins with em dash, which is not a hyphen: stage=pkt"),
    ("−m", "−m begins with minus sign, which is not a hyphen: -m"),
    (
        "stage=pkt -m seed=1,2",
        "seed=1,2 is separated from the other words by a flag: python -m tltrain -m stage",
    ),
    # choices
    ("stage=", "stage=: expected a choice: stage=NAME; there are: analyze, cache, certify, chat, check, "),
    ("+experiment=", "+experiment=: expected a choice: +experiment=NAME; there are: ablation, "),
    ("experiment=ablation", "experiment=ablation: +experiment=ablation (no experiment is chosen by default)"),
    ("++experiment=ablation", "++experiment=ablation: +experiment=ablation (no experiment is chosen"),
    ("+stage=pkt", "+stage=pkt: stage=pkt (this replaces the default choice)"),
    ("++model=tiny", "++model=tiny: model=tiny (this replaces the default"),
    ("stage=[pkt]", "stage=[pkt]: expected one choice, without brackets: stage=pkt"),
    ("stage=[pkt,irm]", "stage=[pkt,irm]: expected one choice, without brackets: stage=CHOICE; -m stage=pkt,irm runs"),
    ("stage=[pkt", "stage=[pkt: expected a choice: stage=NAME; there are: analyze"),
    ("~stage", "~stage: a choice is required; stage=CHOICE chooses another"),
    ("~tracking", "~tracking: a choice is required; tracking=CHOICE chooses another; tracking=none records nothing"),
    ("pkt", "pkt: expected key=value: stage=pkt"),
    ("smoke", "smoke: expected key=value: +experiment=smoke"),
    # spaces and signs
    ("stage = pkt", "stage = pkt: without spaces: stage=pkt"),
    ("stage =pkt", "stage =pkt: without spaces: stage=pkt"),
    ("stage= pkt", "pkt: expected key=value: stage=pkt"),
    ("data.path= a.json", "a.json: expected key=value: without a space: data.path=a.json"),
    ("'stage = pkt'", "stage = pkt: without spaces: stage=pkt"),
    ("stage==pkt", "stage==pkt: one = is enough: stage=pkt"),
    ("stage:pkt", "stage:pkt: expected key=value: stage=pkt"),
    ("=3", "=3: expected key=value"),
    ("seed=1 seed=2", "seed is given twice, as 1 and as 2: leave one of them out"),
    ("stage=pkt +stage.args.max_steps=1 ++stage.args.max_steps=2", "stage.args.max_steps is given twice, as 1 and"),
    ("seed=1,", "seed=1,: it ends with a comma: seed=1; with the comma: 'seed=\"1,\"'"),
    # quoting
    ("'data.path=a(b).json'", "data.path=a(b).json: expected key=value, found ( ), which must be quoted: 'data.path"),
    ("data.path=a=b.json", "data.path=a=b.json: expected key=value, found =, which must be quoted: 'data"),
    ("data.path=a{b.json", "data.path=a{b.json: expected key=value, found {, which must be quoted: 'data.path=\"a{b"),
    (
        "'data.path=a&b.json'",
        "data.path=a&b.json: expected key=value, found &, which must be quoted: 'data.path=\"a&",
    ),
    ("data.path=\\'a.json", "data.path='a.json: expected key=value, found an unpaired ': data.path=a.json, or"),
    ("stage.models=[a,b", "stage.models=[a,b: expected key=value, found [ without ]: 'stage.models=[a,b]', or"),
    (
        "data.path=my chats.json",
        "chats.json: expected key=value; if it belongs to data.path, whose value has a space:",
    ),
    ("data.path=“a.json”", "data.path=“a.json”: the shell does not treat “ as a quotation mark: data.path=a.json"),
    (
        "'data.path=~/a.json'",
        "data.path=~/a.json: the shell expands ~ only at the beginning of a word: data.path=$HOME/a",
    ),
]


@pytest.mark.parametrize(("typed", "said"), MISTAKES, ids=[typed for typed, _ in MISTAKES])
def test_a_mistake_in_a_word_says_the_right_word(typed, said):
    with pytest.raises(TltrainError) as error:
        words.check(shlex.split(typed))
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "-m stage=pkt,sft seed=1,2 hydra.run.dir=a/b",
        "stage=pkt -m",
        "stage=pkt --cfg job --package stage",
        "--config-dir my_conf stage=pkt",
        "stage@stage.rl=irm_released mae@mae.strict=own",
        "+experiment=smoke ~stage.args.max_steps seed=1 seed=1",
        "'stage.benchmarks=[{name: rotbench, levels: [clean, union]}]' model.lora.target_modules=all-linear",
        "'data.path=${oc.env:HOME}/a.json' 'hydra.run.dir=\"a (b), c=d\"'",
        "'data.path=C:\\x\\y.json' 'data.path2=a b.json' 'seed=range(1,4)' stage.predictions=",
        "--info searchpath",
    ],
)
def test_what_hydra_takes_is_not_refused(typed):
    words.check(shlex.split(typed))


@pytest.mark.parametrize(
    "value",
    ["a,b", "a(b)", "x\\", "\\", 'a"b', 'a\\"b', 'a\\\\"', "it's", "[", "{x", "a=b", "null", "1", " x", "a:b", "é #&|"],
)
def test_a_quoted_value_is_read_as_it_was(value):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    (word,) = shlex.split(words.quoted("data.path", value))
    found = OverridesParser.create().parse_override(word).value()
    assert (found if isinstance(found, str) else found.text) == value


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("stage=pkt,irm", "stage=pkt,irm: several choices need a sweep: python -m tltrain -m stage=pkt,irm"),
        ("seed=1,2", "seed=1,2: several values need a sweep with -m; as one value: 'seed=\"1,2\"'; as a list: 'seed=["),
        ("data=openai data.path=a,b.json", "data.path=a,b.json: several values need a sweep with -m; as one value: "),
        (
            "+experiment=smoke stage=pkt",
            "+experiment=smoke is for stage=pipeline and sets stage.benchmarks, which stage=pkt does not have",
        ),
        ("stage@_global_=pkt", "stage@_global_: no such key; stage=CHOICE chooses, without @"),
        ("stage=PKT", "stage=PKT: no such choice; did you mean pkt?; there are: "),
        ("model.sizes=7B", "model.sizes: expected a mapping, found 7B"),
        ("model.sizes=[7]", "model.sizes: expected a mapping, found [7]"),
        ("model.sizes=null", "model.sizes: expected a value, found null"),
        ("model.lora.rank=8", "model.lora.rank: no such key; did you mean model.lora.r?"),
        ("stage.eval_size=3", "stage.eval_size: no such key; it is a key of stage=irm; see"),
        (
            "model.lora.foo=8",
            "model.lora.foo: no such key; there are: r, alpha, dropout, target_modules, merge, quantize",
        ),
        (
            "stage=plan stage.memory_gb=80GB",
            "stage.memory_gb: expected a number, found 80GB; write it without a unit: 80",
        ),
        (
            "'seed=[0,1]'",
            "seed: expected a whole number, found [0, 1]; several values are a sweep, without",
        ),
        ("data.limit=10k", "data.limit: expected a whole number, found 10k; write it without a unit: 10000"),
        ("stage=pkt stage.mae=ja", "stage.mae: expected true or false, found ja"),
        (
            "model.random.hidden_size=8",
            "model.random.hidden_size: the chosen model has no random weights; model=tiny has",
        ),
        ("model.path=", "model.path: expected a value, found nothing; leave the key out to get its default"),
        (
            "stage=sft +stage.args.save_total_limit=3",
            "stage.args.save_total_limit: this key exists already, so leave out the +: st",
        ),
        ("cache.dir=", "cache.dir: expected a value, found nothing"),
        ("stage=pkt data=openai data.path=' '", "data.path: expected a value, found nothing"),
        ("stage=eval source=endpoint source.url=", "source.url: expected a value, found nothing"),
    ],
)
def test_a_mistake_found_while_composing_says_what_would_be_right(typed, said):
    line = mistake(*shlex.split(typed))
    assert line.startswith(said)
    assert "\n" not in line

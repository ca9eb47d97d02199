"""stage=analyze through the command line."""

from __future__ import annotations

import json

import pytest

from tests.support.prediction_lines import line
from tests.support.processes import probe
from tests.support.small_runs import SMALL

PNG = b"\x89PNG"


@pytest.fixture
def result(tmp_path):
    """`result(name, lines)`: make a result folder of stage=eval."""

    def result(name, lines):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return folder

    return result


@pytest.mark.pictures
def test_a_dataset_is_analysed_as_mae_judges_it(tltrain):
    words = ["data.size=60", "stage.rule=strict"]
    ran, mae = tltrain("stage=analyze", *words), tltrain("stage=mae", *words).metrics
    found = ran.metrics["details"]["data"]
    assert found["all"]["errors"] == mae["dropped_error"] and found["all"]["kinds"] == mae["error_kinds"]
    assert found["all"]["calls"] == mae["kept"] + mae["dropped_error"]
    assert found["dropped_no_answer"] == mae["dropped_no_answer"]
    assert ran.metrics["data/errors"] == pytest.approx(100 * mae["dropped_error"] / found["all"]["calls"], abs=1e-4)
    assert sum(group["calls"] for group in found["by"]["domain"].values()) == found["all"]["calls"]
    assert "models" not in ran.metrics["details"] and "results" not in ran.metrics["details"]
    page = (ran.folder / "analysis.md").read_text()
    assert "| data=toolworld | 60 |" in page and "![" in page and "data_errors.png" in page
    assert (ran.folder / "data_errors.png").read_bytes().startswith(PNG)
    assert not (ran.folder / "calls.png").exists()
    assert "Kinds of error in training calls" in ran.out


def test_a_dataset_without_errors_has_no_picture(tltrain):
    ran = tltrain("stage=analyze", "stage.rule=strict", "data.size=4", "data.error_rate=0")
    assert ran.metrics["data/errors"] == 0 and not (ran.folder / "data_errors.png").exists()


def test_data_and_results_need_no_torch(tmp_path, result):
    a = result("a", [line("1"), line("2", "wrong_tool")])
    words = ["stage=analyze", "data.size=4", f"stage.results=[{a}]", "hydra.run.dir=run"]
    ran = probe(tmp_path, *words)
    assert ran.returncode == 0, ran.stderr
    assert "torch" not in ran.stdout.splitlines()[-1] and "transformers" not in ran.stdout.splitlines()[-1]
    assert set(json.loads((tmp_path / "run" / "metrics.json").read_text())["details"]) == {"data", "results"}


@pytest.mark.pictures
def test_results_are_set_side_by_side(tltrain, result):
    a = result("a", [line("1"), line("2", "wrong_tool"), line("3", "wrong_tool")])
    b = result("b", [line("1"), line("2"), line("3", "wrong_value", name="other")])
    ran = tltrain("stage=analyze", f"stage.results=[{a},{b}]")
    results = ran.metrics["details"]["results"]
    assert [name.split("/")[-1] for name in results] == ["a set", "b set", "b other"]
    counts = [{row: n for row, n in rows.items() if n} for rows in results.values()]
    assert counts == [{"correct": 1, "wrong_tool": 2}, {"correct": 2}, {"wrong_value": 1}]
    assert "2 (66.7%)" in ran.out and "data" not in ran.metrics["details"]
    assert (ran.folder / "prediction_kinds.png").read_bytes().startswith(PNG)


@pytest.mark.pictures
def test_two_models_stand_side_by_side_and_what_they_were_trained_on_can_be_left_out(tltrain):
    data = [*SMALL, "data.size=12"]
    trained = tltrain("stage=sft", *data, "stage.args.max_steps=2", "data.holdout=0.25").folder / "model"
    ran = tltrain("stage=analyze", *data, f"stage.models=[base,{trained}]")
    models = ran.metrics["details"]["models"]
    names = list(models)
    assert names[0] == "tiny" and len(names) == 2
    for name, found in models.items():
        tokens, calls = found["tokens"], found["calls"]
        assert tokens["first"]["accuracy"]["n"] == tokens["end"]["loss"]["n"] == calls["any"]["call"]["n"]
        assert tokens["key"]["accuracy"]["n"] + tokens["other"]["accuracy"]["n"] == tokens["all"]["accuracy"]["n"]
        assert ran.metrics[f"{name}/key/loss"] == tokens["key"]["loss"]["value"]
        assert ran.metrics[f"{name}/call/any"] == calls["any"]["call"]["value"]
    base, after = (found["tokens"]["all"]["loss"]["value"] for found in models.values())
    assert 6 < base < 7 and after < base  # nats; ln(768) = 6.6: the model knows nothing yet
    seen = [found["trajectories_trained_on"] for found in models.values()]
    assert seen[0] == 0 and 0 < seen[1] < 12
    assert f"was trained on {seen[1]} of these 12 trajectories' queries" in ran.err
    assert {"key_tokens.png", "calls.png", "data_errors.png"} <= {file.name for file in ran.folder.iterdir()}
    page = (ran.folder / "analysis.md").read_text()
    assert "| first token of the name | tiny |" in page
    unseen = tltrain("stage=analyze", *data, f"stage.models=[base,{trained}]", "stage.unseen=true")
    fewer = [found["calls"]["any"]["call"]["n"] for found in unseen.metrics["details"]["models"].values()]
    assert fewer[0] == fewer[1] < models["tiny"]["calls"]["any"]["call"]["n"]
    assert "was trained on" not in unseen.err


def test_without_mae_models_are_given_the_failed_calls_too(tltrain):
    words = ["stage=analyze", *SMALL, "data.size=12"]
    counts = [
        tltrain(*words, f"stage.mae={mae}").metrics["details"]["models"]["tiny"]["calls"]["any"]["call"]["n"]
        for mae in ("true", "false")
    ]
    data = tltrain("stage=analyze", "data.size=12").metrics["details"]["data"]["all"]
    assert counts == [data["calls"] - data["errors"], data["calls"]]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stage.models=[/no/such]"], "stage.models=/no/such: there is no such folder"),
        (["stage.results=[/no/such]"], "stage.results: /no/such has no predictions.jsonl; expected a result folder"),
        (["stage.modles=[x]"], "stage.modles: no such key; did you mean models?"),
        (["data.size=0"], "data=toolworld: there are no training calls in 0 trajectories"),
        (["data.size=2", "model=tiny", "stage.models=[base,base]"], "stage.models: expected different models, found"),
    ],
)
def test_mistakes_end_in_one_line(tltrain, words, said):
    ran = tltrain("stage=analyze", *words, status=1)
    assert ran.err.splitlines()[-1].startswith(said)
    assert not (ran.folder / "metrics.json").exists()

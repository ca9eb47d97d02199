"""The dashboard's specification, made from panels of logged metrics without a server."""

from __future__ import annotations

import itertools
import json
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from tltrain import tracking
from tltrain.errors import TltrainError
from tltrain.tracking import dashboard, names

needs_workspaces = pytest.mark.skipif(
    tracking.importlib.util.find_spec("wandb_workspaces") is None, reason="wandb-workspaces is not installed"
)
SECTIONS = dashboard.read(None)


def shown(section: dict) -> set[str]:
    return {name for panel in section["panels"] for name in dashboard.metrics_of(panel)}


def test_the_panels_show_each_stage_by_names_that_are_logged():
    assert [(section["name"], section["over"]) for section in SECTIONS] == [
        ("train", "train/global_step"),
        ("irm", "irm/step"),
        ("conversations", "irm/step"),
        ("eval", "Step"),
        ("errors", "irm/step"),
    ]
    train, irm, conversations, evaluation, errors = map(shown, SECTIONS)
    assert train <= {*names.TRAIN, *names.HELD_OUT}
    assert {"irm/reward", "irm/kl", "irm/samples_table"} < irm <= {*names.IRM, *names.TABLES}
    assert "irm/success" in conversations <= {*names.CONVERSATIONS}
    assert {"eval/rotbench_clean/ts", "eval/predictions"} < evaluation
    assert {name for name in names.IRM if "/grade/" in name} < errors
    assert all(map(names.is_known, train | irm | conversations | evaluation | errors))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sections: [{name: a, panels: [{title: b, bars: [train/los]}]}]", "a: b: no stage logs train/los"),
        ("sections: [{name: a, over: steps, panels: [{title: b, lines: [irm/kl]}]}]", "a: b: no stage logs steps"),
        (
            "sections: [{name: a, panels: [{title: b}]}]",
            "found: a panel with the keys title; expected title and one of",
        ),
        ("sections: [{name: a, panels: [{title: b, bars: [], tabel: c}]}]", "a panel with the keys title, bars, tabel"),
        ("panels: []", "expected `sections` of panels, found: 'sections'"),
        ("sections: [", "expected `sections` of panels, found: while parsing"),
    ],
)
def test_a_file_of_panels_that_is_wrong_is_said_at_once(text, said, tmp_path):
    file = tmp_path / "panels.yaml"
    file.write_text(text)
    with pytest.raises(TltrainError) as error:
        dashboard.read(file)
    assert str(error.value).startswith(f"{file}: ") and said in str(error.value)


@needs_workspaces
def test_a_wrong_file_stops_a_job_before_it_begins(tltrain, tmp_path):
    ran = tltrain(
        "stage=mae", "tracking=wandb", "tracking.dashboard=true", f"tracking.panels={tmp_path}/none.yaml", status=1
    )
    assert ran.err.startswith(f"{tmp_path}/none.yaml: expected `sections` of panels, found: [Errno 2]")


def test_a_dashboard_without_its_package_is_said_at_once(tltrain, monkeypatch):
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None)
    ran = tltrain("stage=mae", "tracking=wandb", "tracking.dashboard=true", status=1)
    assert ran.err == (
        "tracking.dashboard=true needs the package wandb-workspaces: pip install wandb-workspaces "
        "(or 'tltrain[dashboards]')\n"
    )


@needs_workspaces
def test_the_workspace_as_it_would_be_sent():
    spec = dashboard.workspace(SECTIONS, "me", "mine")._model.spec.model_dump(by_alias=True, exclude_none=True)
    sections = spec["section"]["panelBankConfig"]["sections"]
    assert [section["name"] for section in sections] == ["train", "irm", "conversations", "eval", "errors"]
    for section, wanted in zip(sections, SECTIONS, strict=True):
        assert len(section["panels"]) == len(wanted["panels"])
        for panel, one in zip(section["panels"], wanted["panels"], strict=True):
            if "table" in one:
                assert one["table"] in json.dumps(panel)
                continue
            assert panel["config"]["metrics"] == dashboard.metrics_of(one)
            assert panel["config"]["chartTitle"] == one["title"]
            assert panel["config"].get("xAxis") == (wanted["over"] if "lines" in one else None)
    assert [key["name"] for key in spec["section"]["runSets"][0]["grouping"]] == ["group", "jobType"]


@needs_workspaces
def test_the_report_as_it_would_be_sent():
    spec = dashboard.report(SECTIONS, "me", "mine")._to_model().spec.model_dump(by_alias=True, exclude_none=True)
    headings = [block["children"][0]["text"] for block in spec["blocks"] if block["type"] == "heading"]
    assert headings == ["train", "irm", "conversations", "eval", "errors"]
    grids = [block["metadata"]["panelBankSectionConfig"]["panels"] for block in spec["blocks"] if "metadata" in block]
    found = [panel["config"].get("metrics") for panel in grids[0]]
    assert found == [dashboard.metrics_of(panel) for panel in SECTIONS[0]["panels"]]


@needs_workspaces
def test_a_dashboard_is_made_once_and_then_updated(tmp_path, monkeypatch):
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    server, number = {}, itertools.count()
    cfg = OmegaConf.create({"tracking": {"panels": None}, "cache": {"dir": str(tmp_path / "cache")}})

    def save(self):
        url = getattr(self, "_internal_name", "") or getattr(self, "id", "") or f"https://host/{next(number)}"
        setattr(self, "_internal_name" if isinstance(self, ws.Workspace) else "id", url)
        server[url] = self
        return SimpleNamespace(url=url)

    for kind in (ws.Workspace, wr.Report):
        monkeypatch.setattr(kind, "save", save)
        monkeypatch.setattr(kind, "from_url", classmethod(lambda cls, url: server[url]))
    urls = dashboard.save(cfg, "me", "mine")
    assert urls == ["https://host/0", "https://host/1"]
    server[urls[0]].sections, server[urls[1]].blocks = [], []
    assert dashboard.save(cfg, "me", "mine") == urls and len(server) == 2
    assert len(server[urls[0]].sections) == 5 and len(server[urls[1]].blocks) == 11
    del server[urls[0]]  # someone removed it
    assert dashboard.save(cfg, "me", "mine") == ["https://host/2", urls[1]]
    assert dashboard.save(cfg, "me", "other") == ["https://host/3", "https://host/4"]


@pytest.mark.parametrize("content", ["[" * 100_000, "[1]", '{"me/mine": "a URL"}', '{"me/mine": 3}', "{"])
def test_a_damaged_record_of_dashboards_makes_new_ones(content, tmp_path, caplog):
    (tmp_path / "dashboards.json").write_text(content)
    assert dashboard._known(tmp_path / "dashboards.json") == {}
    assert "dashboards.json is not used, the dashboards are created again: " in caplog.text

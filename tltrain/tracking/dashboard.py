"""The dashboard as code: a wandb workspace and report made from a file, `conf/tracking/dashboard/panels.yaml`.

Each panel in that file has one of these forms:

    {title: ..., lines: [METRIC, ...], log: true}       over the section's `over`
    {title: ..., bars: [METRIC, ...]}                   the runs' last values
    {title: ..., table: TABLE}                          from the runs that have it

This needs the extra `dashboards` (wandb-workspaces). Nothing is sent before `save`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from tltrain.config import CONF_DIR, plain
from tltrain.errors import TltrainError, shorten
from tltrain.runtime import json_files, runs
from tltrain.tracking import names

log = logging.getLogger(__name__)

PANELS = CONF_DIR / "tracking" / "dashboard" / "panels.yaml"
NAME = "tltrain"
KINDS = {"lines", "bars", "table"}


def read(path: str | Path | None) -> list[dict[str, Any]]:
    """Read and check the sections of a panels file.

    Raises:
        TltrainError: the file cannot be read, a panel has none of the forms above, or no stage logs a metric.
    """
    path = Path(path or PANELS)
    try:
        found = OmegaConf.load(path)
        if not isinstance(found, DictConfig):
            raise TypeError("a list")
        sections = [_section(section) for section in plain(found)["sections"]]
    except (OSError, YAMLError, OmegaConfBaseException, KeyError, TypeError, ValueError) as error:
        raise TltrainError(f"{path}: expected `sections` of panels, found: {' '.join(str(error).split())}") from error
    for section in sections:
        for panel in section["panels"]:
            for metric in (*metrics_of(panel), section["over"]):
                if metric != "Step" and not names.is_known(metric):
                    raise TltrainError(f"{path}: {section['name']}: {panel['title']}: no stage logs {metric}")
    return sections


def _section(section: Mapping[str, Any]) -> dict[str, Any]:
    panels = [dict(panel) for panel in section["panels"]]
    for panel in panels:
        if len(KINDS & panel.keys()) != 1 or panel.keys() - KINDS - {"title", "log"} or "title" not in panel:
            raise ValueError(f"a panel with the keys {', '.join(panel)}; expected title and one of lines, bars, table")
    return {"name": section["name"], "over": section.get("over", "Step"), "panels": panels}


def metrics_of(panel: Mapping[str, Any]) -> list[str]:
    """Return the metrics or table that a panel shows."""
    return [panel["table"]] if "table" in panel else list(panel.get("lines") or panel["bars"])


def workspace(sections: list[dict[str, Any]], entity: str, project: str) -> Any:
    """Make the workspace, an object from wandb-workspaces."""
    import wandb_workspaces.workspaces as ws

    return ws.Workspace(
        entity=entity,
        project=project,
        name=NAME,
        sections=[
            ws.Section(
                name=section["name"],
                panels=[_panel(panel, section["over"]) for panel in section["panels"]],
                is_open=True,
            )
            for section in sections
        ],
        runset_settings=ws.RunsetSettings(groupby=[ws.Metric("Group"), ws.Metric("JobType")]),
    )


def report(sections: list[dict[str, Any]], entity: str, project: str) -> Any:
    """Make a report of the same panels, with a chapter for each section."""
    import wandb_workspaces.reports.v2 as wr

    blocks: list[Any] = [wr.TableOfContents()]
    for section in sections:
        panels = [_panel(panel, section["over"]) for panel in section["panels"]]
        blocks += [wr.H1(section["name"]), wr.PanelGrid(panels=panels)]
    return wr.Report(
        project, entity, f"{NAME}: {project}", "Training, reinforcement and evaluation of tool calls", blocks, "fluid"
    )


def _panel(panel: Mapping[str, Any], over: str) -> Any:
    import wandb_workspaces.reports.v2 as wr

    if "lines" in panel:
        return wr.LinePlot(panel["title"], over, list(panel["lines"]), log_y=panel.get("log"), max_runs_to_show=20)
    if "bars" in panel:
        return wr.BarPlot(panel["title"], list(panel["bars"]), max_runs_to_show=20)
    return wr.WeavePanelSummaryTable(table_name=panel["table"])


def save(cfg: DictConfig, entity: str, project: str) -> list[str]:
    """Create the workspace and report on the server, or update those made before, and return their URLs.

    The URLs are stored in `cache.dir/dashboards.json`, since wandb cannot list workspaces by name.
    """
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    sections = read(cfg.tracking.panels)
    made = {"workspace": workspace(sections, entity, project), "report": report(sections, entity, project)}
    kinds = {"workspace": ws.Workspace, "report": wr.Report}
    file, place = Path(cfg.cache.dir) / "dashboards.json", f"{entity}/{project}"
    known = _known(file)
    for kind, new in made.items():
        old = _load(kinds[kind], known.get(place, {}).get(kind))
        if old is not None:
            for key in ("sections", "runset_settings") if kind == "workspace" else ("blocks", "description"):
                setattr(old, key, getattr(new, key))
        known.setdefault(place, {})[kind] = (old or new).save().url
    runs.write_json(file, known)
    return list(known[place].values())


def _known(file: Path) -> dict[str, dict[str, str]]:
    """Return the URLs of the dashboards made before, by `ENTITY/PROJECT` and kind; empty if they cannot be read."""
    if not file.is_file():
        return {}
    try:
        return {place: {**urls} for place, urls in json_files.read_object(file).items()}
    except (OSError, ValueError, TypeError) as error:
        log.warning("%s is not used, the dashboards are created again: %s", file, shorten(str(error), 200))
        return {}


def _load(kind: Any, url: str | None) -> Any:
    """Load the object at a URL; None if it no longer exists."""
    try:
        return kind.from_url(url) if url else None
    except Exception as error:  # removed or inaccessible: make a new one
        log.debug("%s: %s", url, error)
        return None

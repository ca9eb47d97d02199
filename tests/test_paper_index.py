"""The index of papers in docs/paper.md: every row composes to what it claims, and leads to a page and a test."""

from __future__ import annotations

import re

import pytest
from omegaconf import OmegaConf

from tests.support.composition import composed
from tests.support.documentation import filled_in
from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")
SECTION = PAGE.split("## Index of papers")[1].split("\n## ")[0]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in SECTION.splitlines()
    if re.match(r"\| *(\[|\|)", line)
]
CLAIMS = {
    "MAE": {"stage.mae": True, "stage.w_max": None},
    "PKT": {"stage.w_max": 9.0, "weighting.name": "pkt"},
    "IRM": {"stage.algorithm": "ppo", "reward.redundant_missing": -1.0, "stage.kl": 0.3, "stage.temperature": 0.7},
    "IRM as in the released code": {"stage.do_sample": False, "stage.kl": 0.4, "reward.redundant_missing": 1.0},
    "GAE": {"stage.lam": 0.95, "stage.clip": 0.2},
    "RLOO": {"stage.algorithm": "rloo"},
    "GRPO": {"stage.algorithm": "grpo", "stage.loss_mean": "responses"},
    "DAPO": {"stage.loss_mean": "tokens", "stage.args.epsilon_high": 0.28},
    "Dr. GRPO": {"stage.args.loss_type": "dr_grpo", "stage.args.scale_rewards": "none"},
    "GSPO": {"stage.args.importance_sampling_level": "sequence"},
    "RAFT": {"stage.algorithm": "rejection"},
    "ToolRL": {"reward.name": "toolrl", "stage.algorithm": "grpo"},
    "DFT": {"weighting.name": "dft"},
    "LoRA": {"model.lora.r": 8, "model.lora.alpha": 16.0, "model.lora.dropout": 0.05},
    "QLoRA": {"model.lora.quantize": "4bit"},
    "ZeRO": {"hardware.deepspeed.zero_optimization.stage": 3},
}
"""Row -> what its words come to. Rows of TL-Training go by the method, others by the paper's name."""


def name_of(row: list[str]) -> str:
    papers = re.findall(r"\[([^\]]+)\]", row[0])
    return papers[-1] if papers and papers != ["TL-Training"] else row[1]


@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_a_row_composes_to_what_it_claims(row):
    _, _, command, page, test = row
    cfg = composed(*filled_in(command.strip("`").removeprefix("tltrain ")))
    for key, value in CLAIMS.get(name_of(row), {}).items():
        found = OmegaConf.select(cfg, key)
        assert getattr(found, "name", found) == value, key
    assert re.match(r"\[[^\]]+\]\(\S+\)", page)  # tests/test_documentation.py follows it
    assert (ROOT / test.strip("`")).is_file()


def test_every_claim_belongs_to_a_row():
    assert set(CLAIMS) <= {name_of(row) for row in ROWS} and len(ROWS) == 20

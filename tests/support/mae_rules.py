"""The MAE rules in conf/mae/."""

from __future__ import annotations

import yaml

from tests.support.paths import ROOT
from tltrain.formats.error_rule import with_tables
from tltrain.formats.tool_errors import Rule

CONFIGS = {
    name: with_tables(yaml.safe_load((ROOT / f"conf/mae/{name}.yaml").read_text())) for name in ("paper", "strict")
}
PAPER, STRICT = (Rule.from_config(CONFIGS[name]) for name in ("paper", "strict"))

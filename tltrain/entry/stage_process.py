"""`python -m tltrain.entry.stage_process FILE`: one of the stages that `tltrain.entry.side_by_side` runs."""

from __future__ import annotations

import sys
from pathlib import Path

from tltrain.entry import side_by_side

if __name__ == "__main__":
    sys.exit(side_by_side.work(Path(sys.argv[1])))

"""`python -m tltrain.entry.worker FILE`: one of the processes that `tltrain.entry.launch` starts."""

from __future__ import annotations

import sys
from pathlib import Path

from tltrain.entry import launch

if __name__ == "__main__":
    sys.exit(launch.work(Path(sys.argv[1])))

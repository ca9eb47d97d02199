"""`python -m tltrain.worker FILE`: one of the processes that `tltrain.launch` starts."""

from __future__ import annotations

import sys
from pathlib import Path

from tltrain import launch

if __name__ == "__main__":
    sys.exit(launch.work(Path(sys.argv[1])))

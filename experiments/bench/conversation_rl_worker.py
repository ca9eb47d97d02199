"""One contender of `conversation_rl.py`: tltrain's command line, without the features that the contender lacks.

    python conversation_rl_worker.py CONTENDER SWITCH... -- WORD...

The words are those of `python -m tltrain`. Switches: `fresh_prompts` computes each history again, without the caches of
earlier turns; `processor_time` counts CPU seconds instead of the clock's.
"""

from __future__ import annotations

import sys
import time
from functools import partial


def main() -> int:
    switches, words = sys.argv[1 : sys.argv.index("--")], sys.argv[sys.argv.index("--") + 1 :]
    if "processor_time" in switches:
        time.perf_counter = time.process_time  # before anything reads the clock
    from tltrain.training import conversation_rollout

    if "fresh_prompts" in switches:
        conversation_rollout.hold = partial(conversation_rollout.hold, carry_over=False)
    from tltrain.__main__ import main as run

    sys.argv = ["tltrain", *words]
    return run() or 0


if __name__ == "__main__":
    sys.exit(main())

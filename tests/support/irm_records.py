"""A record of the released IRM data."""

from __future__ import annotations

from tests.support.reader_samples import STUBS

PROMPT = (
    f"System: {STUBS}\nUser: Advice on love?"
    "\nAssistant: search(q=\"love\")\nOutput: search() got an unexpected keyword argument 'q'"
    '\nAssistant: search(query="löve", limit=2)\nOutput: Listen.\nAssistant:'
)
RECORD = {"instruction": PROMPT, "output": 'finish(answer="Listen \\"well\\".")'}

"""Meanings that keys of several stages share."""

from __future__ import annotations

NAME = "name of the stage, which `stage=` chooses"
RULE = (
    "which calls MAE leaves out; paper, strict: those whose answer is an error by this rule; controls: failed, errors: "
    "those that toolworld knows to have failed, or to be wrong; random: as many right calls as paper, drawn with seed"
)
KEY_TOKENS = (
    "tokens that get the weight of a key token, if w_max is set; paper: the key tokens; name: also the rest of the "
    "called tool's name; shuffled: as many random tokens of the turn, as a control"
)
NAMES = (
    "tool names that can be generated; free: any; offered: only those of the tools on offer, as in servers' guided "
    "decoding"
)
MASK = "what MAE leaves out if a message makes several calls; call: the failed calls; message: the whole message"

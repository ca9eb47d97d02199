"""stage=inspect: show trajectories as the trainer sees them, in the terminal and as a page.

    python -m tltrain stage=inspect data=rotbench data.path=FOLDER stage.limit=1

In the terminal, text that is only read is dim; targets are coloured by weight and key tokens underlined; a turn that
MAE leaves out is struck through; `⏎` marks a turn's end token. `inspect.html` shows the same with a legend.
`stage.key_tokens=name` and `shuffled` colour the tokens that carry the weight; the paper's key tokens stay underlined.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.text import Text

from tltrain.config import KeyTokens, Mask
from tltrain.data.judged import Judge, JudgedSource, judge_of, log_reading, read_metrics
from tltrain.data.rules import rule_name
from tltrain.formats import tl
from tltrain.formats.native import tools_of
from tltrain.formats.stubs import description_of, render_tools
from tltrain.mae import Judgement, Verdict
from tltrain.models import encoders, loading
from tltrain.models.loading import CORPUS, corpus
from tltrain.runtime import runs, terminal
from tltrain.tokens import weighting
from tltrain.tokens.encoder import Encoder
from tltrain.tokens.layout import Target
from tltrain.tokens.native import NativeEncoder
from tltrain.trajectory import Trajectory, actions
from tltrain.views.html_page import visible
from tltrain.views.inspect_page import Conversation, History, Settings, Token, Tools, Turn, page

END = "⏎"
READ, LEFT_OUT, PLAIN, KEY, NOTE = "dim", "red strike", "green", "bold underline", "italic cyan"
REASONS = {
    Verdict.KEPT: "the data marks this turn as history (learn: false)",
    Verdict.ERROR: "the tool answered this call with an error",
    Verdict.NO_ANSWER: "no tool's answer follows",
    Verdict.RANDOM: "left out at random (stage.rule=random)",
}
"""Why a turn is not learned, by MAE's verdict; a turn that MAE keeps can only be left out by its source or `BESIDE`."""
BESIDE = "another call of its message failed (stage.mask=message)"


def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Run the stage in `folder` and return what it wrote to `metrics.json`."""
    w_max, key_tokens = cfg.stage.w_max, cfg.stage.key_tokens
    weigh = weighting.configured(cfg.weighting, w_max, key_tokens.name).weigh
    loading.own_format(cfg.format)  # create the user's own format before anything is read or loaded
    source, judge = JudgedSource(cfg), judge_of(cfg)
    items = list(islice(source, max(cfg.stage.limit, CORPUS if cfg.model.random else 0)))
    log_reading(source.read, folder)
    path = loading.resolve(cfg.model, cfg.cache.dir, lambda: corpus(items, cfg.format), cfg.format)
    encoder = encoders.load_encoder(path, cfg.model, cfg.format)
    shown_items = items[: cfg.stage.limit]
    opening = tl.GENERATION_PROMPT
    whole = cfg.stage.mask == Mask.message
    if isinstance(encoder, NativeEncoder):
        opening = "\nAssistant: "
        conversations = [
            native_conversation(item, judge, encoder, weigh or w_max, key_tokens, cfg.seed, whole)
            for item in shown_items
        ]
    else:
        conversations = [
            conversation(item, judge, encoder, weigh or w_max, key_tokens, cfg.seed, whole) for item in shown_items
        ]
    for shown in conversations:
        terminal.console.rule(Text(visible(shown.id)))
        terminal.console.print(coloured(shown, opening))
    terminal.console.print(legend())
    settings = Settings(
        cfg.stage.w_max,
        rule_name(cfg) if cfg.stage.mae else None,
        cfg.model.path or cfg.model.name,
        key_tokens.name,
        str(cfg.weighting.name),
    )
    with runs.writing(folder / "inspect.html") as file:
        file.write(page(conversations, settings))
    metrics = {"shown": len(conversations), "base_model": path, **read_metrics(source.read)}
    runs.finish(folder, cfg, metrics)
    terminal.console.print(f"Written to {folder / 'inspect.html'}", markup=False)
    return metrics


# How the trainer sees a trajectory -----------------------------------------------------------------------------------


def _weigh(w_max: float | weighting.Weigh | None) -> weighting.Weigh | None:
    """Return the weighting if one is given in place of PKT's `w_max`."""
    return w_max if callable(w_max) else None


def _w_max(w_max: float | weighting.Weigh | None) -> float | None:
    return None if callable(w_max) else w_max


def conversation(
    trajectory: Trajectory,
    judge: Judge,
    encoder: Encoder,
    w_max: float | weighting.Weigh | None,
    key_tokens: KeyTokens = KeyTokens.paper,
    seed: int = 0,
    whole_messages: bool = False,
) -> Conversation:
    """Return the trajectory's text with the weight of each token of a learned turn; `whole_messages` as `reasons`."""
    verdicts = judge(trajectory)
    why = reasons(trajectory, verdicts, whole_messages)
    messages: list[History | Turn] = []
    turn, kind = 0, ""
    pieces = list(
        zip(
            encoder.format.segments(trajectory),
            encoder.runs(trajectory, _w_max(w_max), key_tokens, seed, _weigh(w_max)),
            strict=True,
        )
    )
    for piece, run_ in pieces[1:]:  # the first is the system's
        if piece.turn is not None:
            kind, reason = (verdicts[turn][1] or "").replace("_", " "), why[turn]
            turn += 1
            if run_.targets:
                messages.append(Turn(_tokens(piece.text, run_.targets, encoder)))
            else:
                messages.append(Turn((Token(piece.text, 0.0),), False, reason, kind))
        elif not run_.opens_turn:
            speaker, _, text = piece.text.removeprefix("\n").partition(": ")
            messages.append(History(speaker, text, kind))
            kind = ""
    names = tuple(tool.name for tool in trajectory.tools)
    tools = Tools(names, render_tools(trajectory.tools, getattr(encoder.format, "describe", description_of)))
    return Conversation(trajectory.id, tools, tuple(messages), trajectory.instructions)


def native_conversation(
    trajectory: Trajectory,
    judge: Judge,
    encoder: NativeEncoder,
    w_max: float | weighting.Weigh | None,
    key_tokens: KeyTokens = KeyTokens.paper,
    seed: int = 0,
    whole_messages: bool = False,
) -> Conversation:
    """Return the same for a native format; a turn that learns some of its calls shows the others with weight 0."""
    said = encoder.conversation_messages(trajectory)
    learned = {turn.number: turn for turn in encoder.turns(trajectory, _w_max(w_max), key_tokens, seed, _weigh(w_max))}
    first_actions: dict[int, int] = {}
    left_out: dict[int, str] = {}
    kinds: dict[int, str] = {}
    judged = judge(replace(trajectory, messages=said))
    why = reasons(trajectory, judged, whole_messages)
    for number, (action, (_, kind)) in enumerate(zip(actions(said), judged, strict=True)):
        first_actions.setdefault(action.at, number)
        if left_out.get(action.at, BESIDE) in (BESIDE, REASONS[Verdict.KEPT]):  # a verdict says more
            left_out[action.at] = why[number]
        if action.answer is not None:
            kinds[action.answer] = (kind or "").replace("_", " ")
    messages: list[History | Turn] = []
    for at, message in enumerate(said):
        if message.role != "assistant":
            messages.append(History(tl.ROLES[message.role], message.text, kinds.get(at, "")))
        elif (turn := learned.get(first_actions[at])) is not None:
            weights = {target.offset + 1: target for target in turn.targets}
            tokens = [
                Token(text, weights[i].weight, weights[i].key) if i in weights else Token(text, 0.0)
                for i, text in enumerate(encoder.texts(turn.said.ids[:-1]))
            ]
            end = turn.targets[-1]
            messages.append(Turn((*tokens, Token(END, end.weight, end.key, is_end=True))))
        else:
            answers = [action.answer for action in actions(said) if action.at == at and action.answer is not None]
            kind = next((kinds[answer] for answer in answers if kinds[answer]), "")
            calls = [
                json.dumps({"name": made.call.name, "arguments": dict(made.call.arguments)}, ensure_ascii=False)
                for made in message.calls
            ]
            text = "\n".join(filter(None, [message.thought, message.text, *calls]))
            messages.append(Turn((Token(text, 0.0),), False, left_out[at], kind))
    tools = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools_of(trajectory))
    names = tuple(tool.name for tool in trajectory.tools)
    return Conversation(trajectory.id, Tools(names, tools), tuple(messages), trajectory.instructions)


def reasons(trajectory: Trajectory, judged: Sequence[Judgement], whole_messages: bool) -> list[str]:
    """Return for each of the trajectory's `actions` why it is left out, if it is.

    Args:
        whole_messages: whether a message is left out if one of its calls failed (`stage.mask=message`).
    """
    done = actions(trajectory.messages)
    failed = {action.at for action, (verdict, _) in zip(done, judged, strict=True) if verdict is not Verdict.KEPT}
    return [
        BESIDE if whole_messages and verdict is Verdict.KEPT and action.at in failed else REASONS[verdict]
        for action, (verdict, _) in zip(done, judged, strict=True)
    ]


def _tokens(text: str, targets: Sequence[Target], encoder: Encoder) -> tuple[Token, ...]:
    """Return the tokens of a turn, the end token last; text between two tokens has weight 0."""
    at, tokens = 0, []
    for target, (start, end) in zip(targets, encoder.encode([text])[0].spans, strict=False):
        if at < start:
            tokens.append(Token(text[at:start], 0.0))
        # Tokens that share a character (bytes of one letter) show it once.
        tokens.append(Token(text[max(at, start) : end], target.weight, target.key))
        at = max(at, end)
    return (*tokens, Token(END, targets[-1].weight, targets[-1].key, is_end=True))


# The terminal --------------------------------------------------------------------------------------------------------


def coloured(shown: Conversation, opening: str = tl.GENERATION_PROMPT) -> Text:
    """Return the conversation's text, each token styled by its weight; `opening` precedes each turn."""
    parts = filter(None, (shown.instructions, shown.tools.text))
    out = Text(visible(f"{tl.ROLES['system']}: " + "\n\n".join(parts)), READ)
    for message in shown.messages:
        if isinstance(message, History):
            out.append(visible(f"\n{message.speaker}: {message.text}"), READ)
        else:
            out.append(opening, READ)
            _append_turn(out, message)
    return out


def _append_turn(out: Text, turn: Turn) -> None:
    """Append a turn: its tokens, and in brackets its key tokens or a note that it is left out."""
    if not turn.learned:
        out.append(visible("".join(token.text for token in turn.tokens)), LEFT_OUT)
        out.append("  [left out]", NOTE)
        return
    for token in turn.tokens:
        out.append(visible(token.text), _style(token))
    targets = [token for token in turn.tokens if token.weight]
    if keys := [token for token in targets if token.is_key]:
        out.append(f"  [{len(keys)} key of {len(targets)}: {_said(keys)}", NOTE)
        heavy = [token for token in targets if token.weight > 1]
        if heavy and [token.is_key for token in targets] != [token.weight > 1 for token in targets]:
            out.append(f", weight {heavy[0].weight:.2g} on {len(heavy)}: {_said(heavy)}]", NOTE)
        else:
            out.append(f", weight {keys[0].weight:.2g}]", NOTE)


def legend() -> Text:
    """Explain the styles."""
    return Text.assemble(
        ("read", READ),
        "  ",
        ("target", PLAIN),
        "  ",
        ("key token", _style(Token("", 9, True))),
        "  ",
        ("left out by MAE", LEFT_OUT),
        f"  {END} end of a turn",
    )


def _said(tokens: Sequence[Token]) -> str:
    return " ".join(repr(token.text) for token in tokens)


def _style(token: Token) -> str:
    """Return a token's style, warmer for a larger weight; key tokens are bold and underlined."""
    if not token.weight:
        return READ
    if token.weight == 1 and not token.is_key:
        return PLAIN
    weight = token.weight
    colour = "yellow" if weight < 3 else "dark_orange" if weight < 6 else "red"
    return f"{KEY} {colour}" if token.is_key else colour

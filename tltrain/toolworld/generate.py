"""Generate trajectories with mistakes, and benchmark samples without mistakes."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from tltrain.errors import TltrainError
from tltrain.toolworld.domains import FUNCTIONS, SPLITS, TOOLS
from tltrain.toolworld.domains.user import finish, user
from tltrain.toolworld.mistakes import wrong_calls
from tltrain.toolworld.scripts import Script, identity_of, read_identity, write_script
from tltrain.toolworld.world import Answer
from tltrain.trajectory import ANY, Call, Message, Sample, Trajectory

TOOLS_OFFERED = (4, 8)
"""Minimum and maximum number of tools of a conversation, `ask_to_user` and `finish` included."""


def generate(
    size: int,
    seed: int = 0,
    error_rate: float = 0.17,
    split: str = "train",
    tools: str = "standard",
    tools_offered: tuple[int, int] = TOOLS_OFFERED,
) -> Iterator[Trajectory]:
    """Yield `size` trajectories. Each depends only on its index and the other arguments, so a larger size only appends.

    `meta` holds `domain`, `task` (the name of its template, unique in a split; both names with `+` if two tasks are
    joined), `split`, `tools`, `reply` (of the simulated user, or None), and the ground truth, with one entry per
    assistant message: `errors`, the kind of the mistake or None, and `failed`, whether the answer is an error. The
    calls ran in `World(trajectory.id, names of its tools, meta["reply"])`.

    Args:
        error_rate: expected share of wrong calls among all calls, in [0, 1).
        split: `train`, `validation` or `test`, which share neither tools nor tasks nor wordings of queries.
        tools: `standard`; `confusable`, tools whose names share a beginning, offered beside each other; or `all`.
        tools_offered: minimum and maximum number of tools of a conversation, `ask_to_user` and `finish` included.

    Raises:
        TltrainError: an argument is invalid.
    """
    if not 0 <= error_rate < 1:
        raise TltrainError(f"error_rate: expected a number of at least 0 and less than 1, found {error_rate}")
    for script in _scripts(size, seed, split, tools, tools_offered):
        yield _with_mistakes(script, error_rate)


def samples(
    size: int,
    seed: int = 0,
    split: str = "test",
    tools: str = "standard",
    tools_offered: tuple[int, int] = TOOLS_OFFERED,
) -> Iterator[Sample]:
    """Yield `size` questions, each a random turn of a different conversation without mistakes.

    The arguments of `finish` and `ask_to_user` are free text, so any value is correct. In a conversation about
    confusable tools, one of these is always asked for. `meta` holds `scenario` (the domain), `task` (as in `generate`),
    `turn` (from 1) and `tool` (the golden one). Raise TltrainError as `generate` does.
    """
    for script in _scripts(size, seed, split, tools, tools_offered):
        trajectory = _with_mistakes(script, 0)
        asked = [
            turn for turn, golden in enumerate(script.golden) if not (script.confusable and golden.name in user.tools)
        ]
        turn = asked[Random(f"turn/{script.identity}").randrange(len(asked))]
        golden = script.golden[turn]
        if golden.name in user.tools:
            golden = Call(golden.name, dict.fromkeys(golden.arguments, ANY))
        yield Sample(
            id=f"{script.identity}/turn-{turn + 1}",
            tools=trajectory.tools,
            messages=trajectory.messages[: 1 + 2 * turn],
            goldens=(golden,),
            meta={"scenario": script.domain, "task": script.task, "turn": turn + 1, "tool": golden.name},
        )


def set_name(split: str, tools: str) -> str:
    """Return the name that results of a split and its tools have: `toolworld`, `toolworld_validation_confusable`."""
    parts = ("toolworld", "" if split == "test" else split, "" if tools == "standard" else tools)
    return "_".join(filter(None, parts))


def _scripts(size: int, seed: int, split: str, tools: str, tools_offered: tuple[int, int]) -> Iterator[Script]:
    if split not in SPLITS:
        raise TltrainError(f"split: expected one of {', '.join(SPLITS)}, found {split!r}")
    if tools not in TOOLS:
        raise TltrainError(f"tools: expected one of {', '.join(TOOLS)}, found {tools!r}")
    if not len(user.tools) < tools_offered[0] <= tools_offered[1]:
        raise TltrainError(f"tools_offered: expected (least, most) with 3 <= least <= most, found {tools_offered}")
    for index in range(size):
        yield write_script(identity_of(split, tools, seed, index), tools_offered)


def _with_mistakes(script: Script, error_rate: float) -> Trajectory:
    """Run the script's calls, with wrong calls inserted at random before calls of tools other than the user's two."""
    rng = Random(f"mistakes/{script.identity}")
    per_call = _mistakes_per_call(script, error_rate)
    messages, errors, failed = [Message("user", script.query)], [], []

    def say(made: Call, answer: Answer, kind: str | None) -> None:
        messages.append(Message.calling(made))
        if made.name != finish.__name__:
            messages.append(Message("tool", answer.text))
        errors.append(kind)
        failed.append(answer.failed)

    world = script.world()
    for step, golden in enumerate(script.golden):
        made: list[Call] = []
        if golden.name not in user.tools:
            for _ in range(int(per_call) + (rng.random() < per_call % 1)):
                kind, wrong, answer = _mistake(script, step, made, rng)
                say(wrong, answer, kind)
                made.append(wrong)
        say(golden, world.run(golden), None)
    split, tools = read_identity(script.identity)
    meta = {
        "domain": script.domain,
        "task": script.task,
        "split": split,
        "tools": tools,
        "reply": script.reply,
    }
    return Trajectory(
        id=script.identity,
        tools=tuple(FUNCTIONS[name].tool for name in script.offered),
        messages=tuple(messages),
        meta={**meta, "errors": tuple(errors), "failed": tuple(failed)},
    )


def _mistakes_per_call(script: Script, error_rate: float) -> float:
    """Return the number of wrong calls per tool call for which the expected share of wrong calls is `error_rate`.

    Of g golden calls, t are calls of tools; with p wrong calls before each of these, the share is p t / (g + p t).
    """
    of_tools = sum(golden.name not in user.tools for golden in script.golden)
    return error_rate / (1 - error_rate) * len(script.golden) / of_tools


def _mistake(script: Script, step: int, made: list[Call], rng: Random) -> tuple[str, Call, Answer]:
    """Return the kind of mistake, a wrong call to insert before the golden call of that step, and its answer.

    The call differs from all golden calls and all calls made before, and leaves the world unchanged, so that later
    calls are not affected. This is checked by running the call in a separate world.
    """
    for kind, wrong in wrong_calls(script.golden[step], script.offered, rng):
        if wrong in script.golden or wrong in made:
            continue
        world = script.world(script.golden[:step])
        touched = [FUNCTIONS[wrong.name].domain] if wrong.name in FUNCTIONS else []
        before = [world.snapshot(domain) for domain in touched]
        answer = world.run(wrong)
        if before == [world.snapshot(domain) for domain in touched]:
            return kind, wrong, answer
    raise AssertionError("wrong_calls never ends")

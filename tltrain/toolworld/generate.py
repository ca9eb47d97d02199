"""Trajectories with mistakes, and benchmark samples without."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from tltrain.errors import TltrainError
from tltrain.toolworld.domains import FUNCTIONS, SPLITS
from tltrain.toolworld.domains.user import finish, user
from tltrain.toolworld.mistakes import wrong_calls
from tltrain.toolworld.scripts import Script, write_script
from tltrain.toolworld.world import Answer
from tltrain.trajectory import ANY, Call, Message, Sample, Trajectory

TOOLS_OFFERED = (4, 8)
"""Fewest and most tools of a conversation, `ask_to_user` and `finish` included."""


def generate(
    size: int,
    seed: int = 0,
    error_rate: float = 0.17,
    split: str = "train",
    tools_offered: tuple[int, int] = TOOLS_OFFERED,
) -> Iterator[Trajectory]:
    """`size` trajectories, each depending on its index and the other arguments alone: a larger size only appends.

    `meta` holds `domain`, `task`, `split`, `reply` (the simulated user's, or None), and the truth, one entry an
    assistant message: `errors`, None or the kind of the mistake, and `failed`, whether the answer is an error. The
    world the calls ran in is `World(trajectory.id, names of its tools, meta["reply"])`.

    Args:
        error_rate: expected share of wrong calls among all calls; at least 0, less than 1.
        split: `train` or `test`, which share neither tools nor wordings of queries.
        tools_offered: fewest and most tools of a conversation, the last two included.

    Raises:
        TltrainError: an argument is not as above.
    """
    if not 0 <= error_rate < 1:
        raise TltrainError(f"error_rate: expected a number of at least 0 and less than 1, found {error_rate}")
    for script in _scripts(size, seed, split, tools_offered):
        yield _with_mistakes(script, error_rate, split)


def samples(
    size: int, seed: int = 0, split: str = "test", tools_offered: tuple[int, int] = TOOLS_OFFERED
) -> Iterator[Sample]:
    """`size` questions, each a random turn of a conversation without mistakes; no two from one conversation.

    What `finish` and `ask_to_user` are to say is free text: any value is right there. `meta` holds `scenario` (the
    domain), `turn` (from 1) and `tool` (the golden one). Raises TltrainError as `generate` does.
    """
    for script in _scripts(size, seed, split, tools_offered):
        trajectory = _with_mistakes(script, 0, split)
        turn = Random(f"turn/{script.identity}").randrange(len(script.golden))
        golden = script.golden[turn]
        if golden.name in user.tools:
            golden = Call(golden.name, dict.fromkeys(golden.arguments, ANY))
        yield Sample(
            id=f"{script.identity}/turn-{turn + 1}",
            tools=trajectory.tools,
            messages=trajectory.messages[: 1 + 2 * turn],
            goldens=(golden,),
            meta={"scenario": script.domain, "turn": turn + 1, "tool": golden.name},
        )


def _scripts(size: int, seed: int, split: str, tools_offered: tuple[int, int]) -> Iterator[Script]:
    if split not in SPLITS:
        raise TltrainError(f"split: expected one of {', '.join(SPLITS)}, found {split!r}")
    if not len(user.tools) < tools_offered[0] <= tools_offered[1]:
        raise TltrainError(f"tools_offered: expected at least 3 and a most that is not less, found {tools_offered}")
    for index in range(size):
        yield write_script(f"toolworld-{split}-{seed}-{index}", split, tools_offered)


def _with_mistakes(script: Script, error_rate: float, split: str) -> Trajectory:
    """Run the script's calls, each but the user's two preceded by a wrong one now and then."""
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
    meta = {"domain": script.domain, "task": script.task, "split": split, "reply": script.reply}
    return Trajectory(
        id=script.identity,
        tools=tuple(FUNCTIONS[name].tool for name in script.offered),
        messages=tuple(messages),
        meta={**meta, "errors": tuple(errors), "failed": tuple(failed)},
    )


def _mistakes_per_call(script: Script, error_rate: float) -> float:
    """Wrong calls before each call of a tool, so that in expectation wrong / all calls = error_rate.

    Of g golden calls t are of tools; with p wrong ones before each of these, p t / (g + p t) is the rate.
    """
    of_tools = sum(golden.name not in user.tools for golden in script.golden)
    return error_rate / (1 - error_rate) * len(script.golden) / of_tools


def _mistake(script: Script, step: int, made: list[Call], rng: Random) -> tuple[str, Call, Answer]:
    """A wrong call before the golden one of that step, and its answer.

    It is no golden call of any step, none made already, and one that leaves the world as it was: what follows is
    then as if it had not been made. That is seen by making it in a world of its own.
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

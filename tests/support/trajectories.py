"""Trajectories about papers, and runs of tokens with a common beginning."""

from __future__ import annotations

from tltrain.tokens.layout import Run, Target
from tltrain.trajectory import Call, Message, Tool, Trajectory

TOOLS = (
    Tool(
        "getPaperDetails",
        "Details of a paper.",
        {"type": "object", "properties": {"id": {"type": "string", "description": "Its id."}}, "required": ["id"]},
    ),
    Tool(
        "getPapersByKeywords",
        "Find papers.",
        {
            "type": "object",
            "properties": {"words": {"type": "string", "description": "Keywords."}},
            "required": ["words"],
        },
    ),
    Tool(
        "finish",
        "End.",
        {
            "type": "object",
            "properties": {"answer": {"type": "string", "description": "The answer."}},
            "required": ["answer"],
        },
    ),
)


def conversation(*calls: Call, query: str = "Find papers", answer: str = "[]") -> Trajectory:
    messages = [Message("user", query)]
    for call in calls:
        messages += [Message.calling(call), Message("tool", answer)]
    return Trajectory("t", TOOLS, tuple(messages[:-1]))


TRAJECTORY = conversation(
    Call("getPapersByKeywords", {"words": "llm"}),
    Call("getPaperDetails", {"id": "7"}),
    Call("finish", {"answer": "done"}),
)


OTHER = conversation(
    Call("getPaperDetails", {"id": "12345678"}), Call("finish", {"answer": "ä 漢"}), query="What is 12345678?"
)


END, VOCABULARY, ASKS = 9, 10, [3]


def chain(*pieces: tuple[list[int], bool]) -> list[Run]:
    """Make consecutive runs; the marked ones are calls, whose tokens and end token are all targets."""
    runs: list[Run] = []
    turn = 0
    for ids, learned in pieces:
        wanted = [*ids, END] if learned else []
        targets = [Target(k - 1, token, 1.0 + k, k == 0, turn) for k, token in enumerate(wanted)]
        turn += learned
        runs.append(Run(ids, len(runs) - 1, targets))
    return runs


ALIKE = [
    chain(([1, 2, 3], False), ([4, 5], True)),
    chain(([1, 2, 3], False), ([4, 6], True), ([7], False), ([8], True)),
    chain(([1, 2], False), ([5], True)),
]

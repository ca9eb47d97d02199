"""The two tools of every conversation: ask the user, and end with an answer."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from random import Random

from tltrain.toolworld.answers import json_error
from tltrain.toolworld.registry import Domain


@dataclass
class User:
    """The simulated user: the reply to a question, and the final answer that the assistant gave."""

    reply: str = "I have nothing to add."
    answer: str | None = None


def new_user(rng: Random, today: date) -> User:
    """Create the state of `user`."""
    return User()


user = Domain("user", failure=json_error, setup=new_user)


@user.tool
def ask_to_user(user: User, /, question: str) -> str:
    """Ask the user for a detail that is missing.

    question: what to ask
    """
    return user.reply


@user.tool
def finish(user: User, /, answer: str) -> str:
    """End the task and give the user the answer.

    answer: the answer, in a short sentence
    """
    user.answer = answer
    return ""

"""The reward of a sampled response (IRM): the reward table applied to its grade, and other terms of `cfg.reward`.

An answer of several calls (`grading.grade_answer`) earns the mean over the golden calls, with a price for each
superfluous call.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from omegaconf import DictConfig

from tltrain.config import ConversationReward, Matching, OpenText, plain
from tltrain.config.rewards import TableKeys
from tltrain.errors import TltrainError
from tltrain.formats.calls import has_trailing_text
from tltrain.grading import CUT, AnswerGrade, Grade, Outcome, RewardSettings, named_row
from tltrain.runtime import targets
from tltrain.training import conversation_reward, toolrl
from tltrain.trajectory import Sample

OPEN_PARAMETERS = "open_parameters"
"""The record field that lists its open parameters, as TOOL.PARAMETER."""

# A word, or a single character of a script that is split by character (kana, Chinese characters, Hangul syllables).
_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]|[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+"
)


Price = Callable[[Sample, str, Grade | AnswerGrade, bool], float]
"""`(sample, response, grade, ended)` -> reward; `ended`: whether the response has an end token, or was cut off."""


@dataclass(frozen=True)
class TableReward(RewardSettings):
    """The reward table, as a function of a response.

    Raises:
        TltrainError: a package that the settings need is not installed.
    """

    def __post_init__(self) -> None:
        RewardSettings.__post_init__(self)  # the checks of the settings
        if self.open_text is OpenText.similarity:
            check_similarity()

    def __call__(self, sample: Sample, response: str, grade: Grade | AnswerGrade, ended: bool) -> float:
        return reward_of(self, sample, response, grade, ended)


def table(settings: TableKeys) -> TableReward:  # type: ignore[valid-type]  # it is made of another dataclass
    """Return the reward of a table. Raises TltrainError for a wrong price."""
    return TableReward.from_config(plain(settings))


REWARDS: dict[str, Callable[..., Any]] = {
    "table": table,
    "toolrl": toolrl.reward,
    "conversation": conversation_reward.prices,
}
"""Rewards by the name of their choice: functions of a response, or of a whole conversation, whose further parameters
are the keys of the choice."""


def configured(reward: DictConfig, matching: Matching | str) -> Price:
    """Return the reward that a choice names.

    Raises:
        TltrainError: there is no such function, one of its keys is wrong, or a package that it needs is not installed.
    """
    function = targets.named(reward, REWARDS, "reward")
    if function is table:
        return table(reward)
    if of_conversations(reward):
        raise TltrainError(
            f"reward={reward.get('name')}: prices whole conversations, and these are single calls: another reward, or "
            "stage=irm stage.rollout=conversation"
        )
    price = targets.bound(reward, function, "reward")
    return partial(_priced, price, str(reward.get(targets.TARGET) or reward.name), Matching(matching))


def of_conversations(reward: DictConfig) -> bool:
    """Return whether a choice prices whole conversations, not single responses.

    Raises:
        TltrainError: there is no such function.
    """
    function = targets.named(reward, REWARDS, "reward")
    return function is conversation_reward.prices or "conversation" in targets.called_with(function)


def configured_for_conversations(reward: DictConfig, matching: Matching | str) -> conversation_reward.Price:
    """Return the reward of whole conversations that a choice names.

    Raises:
        TltrainError: it prices single responses, there is no such function, or one of its keys is wrong.
    """
    if not of_conversations(reward):
        raise TltrainError(
            f"reward={reward.get('name')}: prices single calls, and stage.rollout=conversation has whole "
            "conversations: reward=conversation"
        )
    function = targets.named(reward, REWARDS, "reward")
    if function is conversation_reward.prices:
        return conversation_reward.prices(ConversationReward(**plain(reward)), Matching(matching))
    price = targets.bound(reward, function, "reward")
    return conversation_reward.own(price, str(reward.get(targets.TARGET)), Matching(matching))


def _priced(
    price: Callable[..., Any],
    name: str,
    matching: Matching,
    sample: Sample,
    response: str,
    grade: Grade | AnswerGrade,
    ended: bool,
) -> float:
    """Return what a function gives for a response.

    Raises:
        TltrainError: it raises something, or gives no finite number.
    """
    with targets.explained(f"reward {name}, response to {sample.id}"):
        found = price(sample=sample, response=response, grade=grade, ended=ended, matching=matching)
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        raise TltrainError(f"reward {name}: expected a finite number, found {found!r} for the response to {sample.id}")
    return float(found)


def prices_abstention(price: Price) -> bool:
    """Return whether a reward has prices for questions to which no call is right, as a table may have."""
    return isinstance(price, TableReward) and price.prices_abstention


def of_answer(price: Price, sample: Sample, answer: str, grade: Grade | AnswerGrade) -> float | None:
    """Return the reward of a benchmark's answer; a table gives only the row's price, whatever text surrounds the call.

    It is None for a question to which no call is right, if such questions have no price.
    """
    if sample.abstain and not prices_abstention(price):
        return None
    return grade.reward(price) if isinstance(price, TableReward) else price(sample, answer, grade, True)


def row_of(grade: Grade | AnswerGrade, ended: bool) -> str:
    """Return the grade's row of the reward table, or `CUT`."""
    return CUT if is_cut(grade, ended) else grade.row


def is_cut(grade: Grade | AnswerGrade, ended: bool) -> bool:
    """Return whether the response was cut off before a call could be read; a call might have followed words."""
    return not ended and grade.outcome in (Outcome.FORMAT_ERROR, Outcome.ABSTAINED)


def reward_of(
    settings: RewardSettings, sample: Sample, response: str, grade: Grade | AnswerGrade, ended: bool = True
) -> float:
    """Return the reward of a response to `sample`.

    For an answer that may make several calls it is the mean over the golden calls. Text after a call then has no price:
    it may be another call, and words beside calls are not a mistake.

    Args:
        grade: the response's grade, by `grade` or `grade_answer`.
        ended: whether it has an end token; if not, `stage.max_new_tokens` cut it off.
    """
    if isinstance(grade, AnswerGrade):
        single = len(grade.grades) == 1 and not grade.superfluous
        reward = grade.mean(
            [_of_call(settings, sample, response if single else None, one, ended) for one in grade.grades], settings
        )
    else:
        reward = _of_call(settings, sample, response, grade, ended)
        if settings.trailing_text and has_trailing_text(response):
            reward += settings.trailing_text
    if settings.no_end_token and not ended and not is_cut(grade, ended):
        reward += settings.no_end_token
    return reward


def _of_call(settings: RewardSettings, sample: Sample, text: str | None, grade: Grade, ended: bool) -> float:
    """Return the reward of one call, or of a missing one; `text` is the response if it has no other call."""
    if sample.abstain:
        return (
            (settings.format_error if settings.cut is None else settings.cut)
            if is_cut(grade, ended)
            else grade.reward(settings)
        )
    if settings.name_only:
        if text is not None:
            return settings[named_row(text, sample.goldens, sample.tools)]
        return settings[Outcome.CORRECT.value if grade.ts else grade.row]
    if is_cut(grade, ended):
        return settings.format_error if settings.cut is None else settings.cut
    if grade.outcome is Outcome.WRONG_VALUE:
        return _with_wrong_values(settings, sample, grade)
    return grade.reward(settings)


def _with_wrong_values(settings: RewardSettings, sample: Sample, grade: Grade) -> float:
    """Return the reward of a call with a wrong value: `wrong_value`, or more if only open text is wrong."""
    if settings.open_text is OpenText.exact or grade.prediction is None or grade.golden is None:
        return settings.wrong_value
    called, golden = grade.prediction, grade.golden
    open_names = {*settings.open_parameters, *marked_open(sample)}
    if not all(f"{called.name}.{name}" in open_names for name in grade.wrong_values):
        return settings.wrong_value
    if settings.open_text is OpenText.ignored:
        return settings.correct
    compared = [name for name in golden.arguments if f"{called.name}.{name}" in open_names]
    shares = [
        similarity(called.arguments[name], golden.arguments[name]) if name in grade.wrong_values else 1.0
        for name in compared
    ]
    return settings.wrong_value + (settings.correct - settings.wrong_value) * sum(shares) / len(shares)


def marked_open(sample: Sample) -> Collection[str]:
    """Return the open parameters that the sample's record names.

    Raises:
        TltrainError: the field is not a list of TOOL.PARAMETER.
    """
    marked = sample.meta.get(OPEN_PARAMETERS) or ()
    if isinstance(marked, str) or not all(isinstance(name, str) and "." in name for name in marked):
        raise TltrainError(f"{sample.id}: {OPEN_PARAMETERS}: expected a list of TOOL.PARAMETER, found {marked!r}")
    return marked


def similarity(text: Any, golden: Any) -> float:
    """Return the similarity of two texts, from 0 to 1: ROUGE-L's F measure (Lin 2004), ignoring case.

    That is twice the length of their longest common subsequence of words, over the sum of their lengths. The
    similarity is 0 if either is not a string or has no words.

    Raises:
        TltrainError: the package rapidfuzz is not installed.
    """
    indel = _indel()
    if not isinstance(text, str) or not isinstance(golden, str):
        return 0.0
    words, right = _words(text), _words(golden)
    return indel.normalized_similarity(words, right) if words and right else 0.0


def _words(text: str) -> Sequence[str]:
    return _WORD.findall(text.casefold())


def check_similarity() -> None:
    """Raise a TltrainError if the package that compares texts is not installed."""
    _indel()


def _indel() -> Any:
    try:
        import rapidfuzz.distance

        return rapidfuzz.distance.Indel
    except ImportError:
        raise TltrainError(
            "reward.open_text=similarity: the package rapidfuzz is not installed: pip install 'tltrain[similarity]'"
        ) from None

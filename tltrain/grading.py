"""The grade of a call, from which everything else derives: reward, TS, PI, CF, DE, and the statistics of errors.

`grade` compares a prediction with the accepted calls and the tools on offer, and returns where it first goes wrong, in
the order of the paper's reward table (IRM). `tltrain.config.rewards` has the table, `tltrain.formats.values` the
comparison of values. Nothing here depends on models or benchmarks.

`grade_answer` grades an answer that may make several calls: each is matched to one of the golden calls.
`grade_abstention` grades an answer to a question to which no call is right.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

from tltrain.config import Matching
from tltrain.config.rewards import PAPER_REWARD, PAPER_SETTINGS, RewardSettings, RewardTable
from tltrain.errors import TltrainError
from tltrain.formats.calls import UNREADABLE, CallSyntaxError, read_call, read_calls, split_calls
from tltrain.formats.matching import best_pairs
from tltrain.formats.preamble import thought_end, words_before_call
from tltrain.formats.reasons import parameter_faults, quoted, shown, shown_golden
from tltrain.formats.values import optional, same_value
from tltrain.grades import ABSTENTION, CALL_OUTCOMES, CUT, SAMPLED_OUTCOMES, AnswerGrade, Grade, Outcome
from tltrain.trajectory import ANY, Call, OneOf, Sample, Tool

__all__ = [
    "ABSTENTION",
    "ANY",
    "CALL_OUTCOMES",
    "CUT",
    "PAPER_REWARD",
    "PAPER_SETTINGS",
    "SAMPLED_OUTCOMES",
    "AnswerGrade",
    "Grade",
    "OneOf",
    "Outcome",
    "RewardSettings",
    "RewardTable",
    "abstention",
    "calls_of",
    "first_call",
    "grade",
    "grade_abstention",
    "grade_answer",
    "named_row",
    "same_value",
]


def grade_answer(
    prediction: str,
    asked: Sequence[Sequence[Call]],
    tools: Sequence[Tool],
    values: Matching | str = Matching.strict,
) -> AnswerGrade:
    """Grade an answer that may make several calls against golden calls that are all asked for, in any order.

    As many calls as possible are matched one to one with golden calls. Among these matchings, the best has the most
    correct calls, then the most calls with only a wrong value, and so on down to the worst row of the reward table. The
    order of the calls does not change the numbers. Among equally good matchings, the first golden call gets the
    earliest call, then the second golden call.

    Args:
        prediction: text in the TL format, one call after another (`formats.native.as_text` writes it).
        asked: for each golden call the accepted ones (`Sample.asked`). If empty, every call is compared with the
            documentation.
        tools, values: as in `grade`.

    Never raises for a model's answer.
    """
    calls = calls_of(prediction, tools)
    if not asked:
        return AnswerGrade(tuple(grade(call, None, tools, values) for call in calls), compared=False)
    if len(asked) == len(calls) == 1:
        return AnswerGrade((grade(calls[0], asked[0], tools, values),))
    table = [[grade(call, golden, tools, values) for call in calls] for golden in asked]
    pairs = best_pairs([[one.rank for one in row] for row in table])
    grades = [
        _missing(golden[0]) if at is None else row[at] for golden, row, at in zip(asked, table, pairs, strict=True)
    ]
    free = [grade(call, None, tools, values) for at, call in enumerate(calls) if at not in pairs]
    return AnswerGrade(tuple(grades), tuple(free))


def abstention(sample: Sample, prediction: str) -> Grade:
    """Grade an answer to a question to which no call is right; its record may list tools whose call counts as words.

    Raises:
        TltrainError: the record's field is not a list of names.
    """
    tools = sample.meta.get(ABSTAINING_TOOLS) or ()
    if isinstance(tools, str) or not all(isinstance(name, str) for name in tools):
        raise TltrainError(f"{sample.id}: {ABSTAINING_TOOLS}: expected a list of tools' names, found {tools!r}")
    return grade_abstention(prediction, sample.tools, tools)


ABSTAINING_TOOLS = "abstaining_tools"
"""The record field that lists tools whose call answers the user in place of words (`finish`, `ask_to_user`)."""


def grade_abstention(prediction: str, tools: Sequence[Tool], abstaining: Collection[str] = ()) -> Grade:
    """Grade an answer to a question to which no call is right.

    The outcome is `ABSTAINED` for words and `CALLED_ANYWAY` for a call of any tool, even after words. An empty answer,
    or one that begins like a call but cannot be read, is a `FORMAT_ERROR`.

    Args:
        abstaining: names of tools on offer whose call answers the user; an answer with only such calls abstains.

    Never raises for a model's answer.
    """
    begins = thought_end(prediction)
    if begins is None:
        return Grade(Outcome.FORMAT_ERROR, "a thought that does not end")
    said = prediction[begins:].strip()
    if not said:
        return Grade(Outcome.FORMAT_ERROR, "the answer is empty")
    names = {tool.name for tool in tools}
    if calls := _made_calls(said, names):
        other = next((call for call in calls if call.name not in abstaining or call.name not in names), None)
        if other is None:
            return Grade(Outcome.ABSTAINED, f"{quoted([calls[0].name])} answers the user", calls[0])
        return Grade(Outcome.CALLED_ANYWAY, f"no call is right, and {quoted([other.name])} is called", other)
    read = _read(said, names)
    if isinstance(read, Grade):
        if read.outcome is Outcome.WORDS_BEFORE_CALL:
            return Grade(Outcome.CALLED_ANYWAY, f"no call is right, and {read.reason}")
        if said.startswith(UNREADABLE) or said.lstrip("[ ").startswith(tuple(f"{name}(" for name in names)):
            return Grade(Outcome.FORMAT_ERROR, read.reason)
    return Grade(Outcome.ABSTAINED, "answered without a call")


def _made_calls(said: str, names: Collection[str]) -> list[Call]:
    """Return the calls that an answer begins with.

    If the first call's tool is not on offer, the calls count only if the answer says nothing else, since words may look
    like a call: `sin(30) is 0.5`.
    """
    calls = read_calls(said)
    if not calls or calls[0].name in names:
        return calls
    parts = split_calls(said)
    whole = all(isinstance(part, Call) and _NAME.fullmatch(part.name) for part in parts)
    return calls if whole and said.endswith((")", ")]")) else []


_NAME = re.compile(r"[\w.\-/:]+")


def calls_of(prediction: str, tools: Sequence[Tool]) -> list[Call | str]:
    """Return an answer's calls, an unreadable one as text; the answer itself if it does not begin with a call."""
    if prediction.startswith(UNREADABLE) or isinstance(first_call(prediction, tools), Call):
        return split_calls(prediction)
    return [prediction]


def _missing(golden: Call) -> Grade:
    return Grade(Outcome.MISSING_CALL, f"no call is left for {quoted([golden.name])}", golden=golden)


def grade(
    prediction: str | Call,
    golden: Call | Sequence[Call] | None,
    tools: Sequence[Tool],
    values: Matching | str = Matching.strict,
) -> Grade:
    """Grade a predicted call (the paper, IRM).

    Args:
        prediction: the model's answer, or the call read from it.
        golden: the accepted call, or several. With several, the one with the best grade counts: `CORRECT` before
            anything else, then the highest of the paper's rewards, then the first. None compares with the documentation
            only; `missing` then means a parameter that the schema requires, and `CORRECT` that nothing is contradicted.
        tools: the tools on offer. Any other tool is hallucinated, even if the golden call has it, since it cannot be
            called. A parameter of the golden call is never hallucinated, although documentation may lack it
            (RoTBench's sometimes does), since the golden call must be a right answer.
        values: how values are compared (see `same_value`). A golden `ANY` accepts every value, a `OneOf` each of its
            values; if the `OneOf` is optional, the parameter may be missing.

    Words before the call (a thought, a sentence, a code fence) are as bad as an unreadable call, since the paper's
    models begin with the tool's name; `formats.preamble.without_words` removes them.

    Never raises for a model's answer.
    """
    values = Matching(values)
    read = _read(prediction, {tool.name for tool in tools}) if isinstance(prediction, str) else prediction
    if isinstance(read, Grade):
        return read
    call = read
    # Public data may offer two tools of the same name (RoTBench: `drivers`): take the one that fits the call best.
    tool = min((tool for tool in tools if tool.name == call.name), key=lambda tool: _misfit(call, tool), default=None)
    if tool is None:
        reason = f"{quoted([call.name])} is not on offer"
        return Grade(Outcome.TOOL_HALLUCINATION, reason, call, contradictions=(reason,))
    unknown, lacking = _unknown(call, tool), _lacking(call, tool)
    unnamed = _unnamed(call, lacking)
    contradictions = parameter_faults(call.name, unknown, (), lacking, unnamed)
    if not golden:
        outcome = Outcome.PARAMETERS if contradictions else Outcome.CORRECT
        reason = "; ".join(contradictions) or "agrees with the documentation"
        return Grade(outcome, reason, call, None, unknown, (), lacking, (), contradictions, unnamed)
    accepted = (golden,) if isinstance(golden, Call) else tuple(golden)
    same_tool = [right for right in accepted if right.name == call.name]
    if not same_tool:
        names = dict.fromkeys(right.name for right in accepted)
        reason = f"{quoted([call.name])} was called, not {quoted(names, ' or ')}"
        return Grade(Outcome.WRONG_TOOL, reason, call, accepted[0], contradictions=contradictions)
    return _best(_compare(call, right, tool, values, contradictions) for right in same_tool)


def _read(prediction: str, names: Collection[str]) -> Call | Grade:
    """Return the call that a prediction begins with, or the grade of a prediction that begins with none."""
    problem, call = "", None
    try:
        call = read_call(prediction)
        if call.name in names:
            return call
    except CallSyntaxError as error:
        problem = str(error)
    try:
        words = words_before_call(prediction, names)
    except CallSyntaxError as error:  # a thought without a call after it
        words, call, problem = 0, None, str(error)
    if words:
        behind = read_call(prediction[words:]).name
        reason = f"{quoted([prediction[:words]])} stands before the call of {quoted([behind])}"
        return Grade(Outcome.WORDS_BEFORE_CALL, reason, contradictions=(reason,))
    return call or Grade(Outcome.FORMAT_ERROR, problem, contradictions=(problem,))


def first_call(prediction: str, tools: Sequence[Tool]) -> Call | str:
    """Return the first call of an answer that may make several; the answer itself if it does not begin with a call."""
    names = {tool.name for tool in tools}
    calls = read_calls(prediction)
    return calls[0] if calls and (calls[0].name in names or isinstance(_read(prediction, names), Call)) else prediction


def named_row(prediction: str, golden: Sequence[Call], tools: Sequence[Tool]) -> str:
    """Return the row of the reward table by the tool's name alone, the text before the first `(`.

    This is how the released reward treats calls with double-quoted values, whose arguments it does not read.
    """
    name, opening, _ = prediction.partition("(")
    name = name.strip()
    if not opening:
        return Outcome.FORMAT_ERROR.value
    if name not in {tool.name for tool in tools}:
        return Outcome.TOOL_HALLUCINATION.value
    return (Outcome.CORRECT if name in {right.name for right in golden} else Outcome.WRONG_TOOL).value


def _unknown(call: Call, tool: Tool) -> tuple[str, ...]:
    return tuple(name for name in call.arguments if name not in tool.properties)


def _lacking(call: Call, tool: Tool) -> tuple[str, ...]:
    return tuple(name for name in tool.required if name not in call.arguments)


def _unnamed(call: Call, missing: Sequence[str]) -> int:
    """Return the number of values without a name; 0 if a parameter is missing, since they may stand for it."""
    return 0 if missing else call.positional


def _misfit(call: Call, tool: Tool) -> int:
    return len(_unknown(call, tool)) + len(_lacking(call, tool))


def _best(grades: Iterable[Grade]) -> Grade:
    """Return the first of the best grades; once the tool is right, the paper's rewards increase with the outcome."""
    return max(grades, key=lambda grade: (grade.outcome is Outcome.CORRECT, grade.reward()))


def _compare(call: Call, golden: Call, tool: Tool, values: Matching, contradictions: tuple[str, ...]) -> Grade:
    """Grade a call of the right tool."""
    extra = [name for name in call.arguments if name not in golden.arguments]
    hallucinated = tuple(name for name in extra if name not in tool.properties)
    redundant = tuple(name for name in extra if name in tool.properties)
    missing = tuple(
        name for name, value in golden.arguments.items() if name not in call.arguments and not optional(value)
    )
    unnamed = _unnamed(call, missing)
    if extra or missing or unnamed:
        reason = "; ".join(parameter_faults(call.name, hallucinated, redundant, missing, unnamed))
        return Grade(
            Outcome.PARAMETERS,
            reason,
            call,
            golden,
            hallucinated,
            redundant,
            missing,
            contradictions=contradictions,
            positional=unnamed,
        )
    wrong = tuple(
        name
        for name, value in golden.arguments.items()
        if name in call.arguments and not same_value(call.arguments[name], value, values)
    )
    if wrong:
        reason = "; ".join(
            f"{quoted([name])} is {shown(call.arguments[name])}, not {shown_golden(golden.arguments[name])}"
            for name in wrong
        )
        outcome = Outcome.WRONG_VALUE
    else:
        outcome, reason = Outcome.CORRECT, "the accepted call"
    return Grade(outcome, reason, call, golden, wrong_values=wrong, contradictions=contradictions)

"""Two rewards. For responses, a right call earns 1, an unreadable one costs most, and every word costs a little. For
conversations, success earns 1, and every call costs a little."""


def price(response, grade, ended, a_word: float = 0.01):
    """Return the reward of a graded response; `ended` is false if it was cut off."""
    if grade.prediction is None or not ended:
        return -1.0
    return (1.0 if grade.cf else 0.5 if grade.ts else -0.5) - a_word * len(response.split())


def brief(conversation, a_call: float = 0.1):
    """Return 1 for success, less the number of calls."""
    return bool(conversation.outcome["success"]) - a_call * len(conversation.calls)

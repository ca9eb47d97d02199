"""A rule for tool answers: which of them are errors, and of which kind."""


def kind_of(answer, is_error, words: list[str]):
    """Return the kind of error, or None; `is_error` is what the data says about the answer, or None."""
    if is_error:
        return "flagged"
    return "apology" if answer.lower().startswith(tuple(words)) else None

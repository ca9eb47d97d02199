"""A source of answers: the tool whose description shares most words with the question, called without arguments."""


def answer(samples, default: str = ""):
    """Return a text for each sample; `default` where no tool is on offer."""
    return [best(sample) if sample.tools else default for sample in samples]


def best(sample):
    """Return a call of the tool that suits best."""
    asked = set(sample.query.lower().split())
    return max(sample.tools, key=lambda tool: len(asked & set(tool.description.lower().split()))).name + "()"

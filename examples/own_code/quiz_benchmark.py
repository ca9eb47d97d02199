"""A benchmark: the records of `pair_reader` as questions."""

import pair_reader

from tltrain.trajectory import Sample


def question(record, number, notes):
    """Return the question of a record; its golden call is the last message's."""
    read = pair_reader.parse(record, number, notes)
    return Sample(read.id, read.tools, read.messages[:-1], (read.messages[-1].calls[0].call,))

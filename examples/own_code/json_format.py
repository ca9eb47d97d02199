"""A format: the paper's text, but a call is a JSON object."""

import json

from tltrain.formats.calls import render_call
from tltrain.formats.tl import TlFormat
from tltrain.trajectory import Call


class JsonCalls(TlFormat):
    def __init__(self, word: str = "tool"):  # the key of the choice
        self.begin = f' {{"{word}": '

    def call_text(self, call):
        return f'{self.call_head(call.name)}, "arguments": {json.dumps(dict(call.arguments))}}}'

    def name_at(self, call):
        return len(self.begin) + 1  # after the quotation mark

    def call_head(self, name):
        return self.begin + json.dumps(name)

    def answer(self, text):  # as text of the paper's format, which is graded
        try:
            name, arguments = json.JSONDecoder().raw_decode(text.strip())[0].values()
            return render_call(Call(name, arguments))
        except (ValueError, AttributeError, TypeError):
            return text

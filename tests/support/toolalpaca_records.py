"""A record in the format of ToolAlpaca's evaluation files."""

from __future__ import annotations

OUTPUT = "\nOutput: Fine.\n - Format: application/json\n - Structure: Array[#Cat]"
API = {
    "Name": "Cats",
    "Function_Description": {
        "find": 'Finds a cat\nParameters: {"id": "Required. string. Its id, say 7.", "size": "integer. "}' + OUTPUT,
        "all": "Parameters: {}" + OUTPUT,
        "components": "#Cat: Object{id}",
    },
    "Instructions": ["Show cat 7.", "Show all cats, then cat 7."],
    "Golden_Answers": [
        [{"Action": "find", "Action_Input": '{"id": "7"}'}],
        [{"Action": "all", "Action_Input": "{}"}, {"Action": "find", "Action_Input": "broken"}],
    ],
}

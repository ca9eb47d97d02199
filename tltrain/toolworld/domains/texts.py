"""Domains that handle strings: text, encoding."""

from __future__ import annotations

import base64
import zlib
from random import Random

from tltrain.toolworld.answers import traceback, value_error
from tltrain.toolworld.registry import Domain, Failure, Plan, Vague, call
from tltrain.toolworld.vocabulary import WORDS, phrase

LONGEST = 2000  # maximum number of characters that a tool accepts, which bounds the length of answers

text = Domain("text", failure=traceback)


def _limited(string: str) -> str:
    if not string.strip():
        raise Failure("text is empty")
    if len(string) > LONGEST:
        raise Failure(f"text is longer than {LONGEST} characters")
    return string


@text.tool
def countWords(text: str) -> int:
    """Count the words of a text.

    text: text to look at
    """
    return len(_limited(text).split())


@text.tool
def countCharacters(text: str, skipSpaces: bool = False) -> int:
    """Count the characters of a text.

    text: text to look at
    skipSpaces: true to leave out spaces
    """
    return len(_limited(text).replace(" ", "") if skipSpaces else _limited(text))


@text.tool
def countOccurrences(text: str, word: str) -> int:
    """Count how often a word occurs in a text.

    text: text to look at
    word: word to look for
    """
    return _limited(text).split().count(word)


@text.tool
def replaceWord(text: str, old: str, new: str) -> str:
    """Replace a word wherever it occurs.

    text: text to change
    old: word to replace
    new: word to put there
    """
    if _limited(old) not in _limited(text):
        raise Failure(f"{old!r} does not occur in the text")
    if len(new) > LONGEST:
        raise Failure(f"new is longer than {LONGEST} characters")
    return _limited(text.replace(old, new))


@text.tool
def reverseWords(text: str) -> str:
    """Put the words of a text in reverse order.

    text: text to change
    """
    return " ".join(reversed(_limited(text).split()))


@text.tool
def toUpperCase(text: str) -> str:
    """Write a text in capitals.

    text: text to change
    """
    return _limited(text).upper()


@text.tool
def joinWords(words: list[str], separator: str = " ") -> str:
    """Join words into one text.

    words: words to join
    separator: what to write between them
    """
    return _limited(separator.join(words))


@text.task(
    "How many words are there in '{text}'?",
    "[Count|Please count] the words of '{text}'.",
    vague=Vague("[Can you count the words of my text?|Count my words.]", "What is the text?", "{text}"),
)
def words(_: None, rng: Random) -> Plan:
    string = phrase(rng)
    yield {"text": string}
    count = yield call(countWords, text=string)
    return f"The text has {count} words."


@text.task(
    "How many characters does '{text}' have?",
    "How many characters does '{text}' have[ if {spaces} are skipped|, not counting {spaces}]?",
    "[Count|Tell me the number of] characters in '{text}'.",
)
def characters(_: None, rng: Random) -> Plan:
    string = phrase(rng, 2, 4)
    mentioned = yield {"text": string, "spaces": "spaces"}
    skipping = {"skipSpaces": True} if "spaces" in mentioned else {}
    count = yield call(countCharacters, text=string, **skipping)
    return f"The text has {count} characters."


@text.task(
    "How often does '{word}' occur in '{text}'?",
    "[Look at|Take] the text '{text}'. How many times is the word '{word}' in it?",
)
def occurrences(_: None, rng: Random) -> Plan:
    several = rng.sample(WORDS, 4)
    string = " ".join(rng.choices(several, k=6))
    word = rng.choice(string.split())
    yield {"text": string, "word": word}
    count = yield call(countOccurrences, text=string, word=word)
    return f"The number of times {word} occurs is {count}."


@text.task(
    "In '{text}', replace '{old}' by '{new}'[.| please.]",
    "[Change the word '{old}' to|Replace the word '{old}' by] '{new}' in the text '{text}'.",
)
def replacement(_: None, rng: Random) -> Plan:
    *several, new = rng.sample(WORDS, 5)
    string, old = " ".join(several), rng.choice(several)
    yield {"text": string, "old": old, "new": new}
    changed = yield call(replaceWord, text=string, old=old, new=new)
    return f"The new text is: {changed}"


@text.task(
    "Join the words {words} and write the result in capitals.",
    "[I have the words|Here are words:] {words}. Join them into one text and then put it in capitals.",
)
def join_in_capitals(_: None, rng: Random) -> Plan:
    several = rng.sample(WORDS, rng.randint(3, 4))
    yield {"words": several}
    joined = yield call(joinWords, words=several)
    loud = yield call(toUpperCase, text=joined)
    return f"The text is: {loud}"


@text.task(
    "Put the words of '{text}' in reverse order, replace '{old}' by '{new}', and write all of it in capitals.",
    "Take '{text}', reverse the order of its words, then change '{old}' to '{new}', then make it upper case.",
)
def three_changes(_: None, rng: Random) -> Plan:
    *several, new = rng.sample(WORDS, 4)
    string, old = " ".join(several), rng.choice(several)
    yield {"text": string, "old": old, "new": new}
    backwards = yield call(reverseWords, text=string)
    changed = yield call(replaceWord, text=backwards, old=old, new=new)
    loud = yield call(toUpperCase, text=changed)
    return f"The text is: {loud}"


encoding = Domain("encoding", failure=value_error)


@encoding.tool
def encode_base64(text: str) -> str:
    """Encode a text in base64.

    text: text to encode
    """
    return base64.b64encode(_limited(text).encode()).decode()


@encoding.tool
def decode_base64(data: str) -> str:
    """Decode base64 to text.

    data: base64 to decode
    """
    return base64.b64decode(_limited(data), validate=True).decode()


@encoding.tool
def encode_hex(text: str, separator: str = "") -> str:
    """Encode a text as hexadecimal bytes.

    text: text to encode
    separator: character to write between bytes
    """
    return _limited(text).encode().hex(*separator[:1])


@encoding.tool
def decode_hex(data: str) -> str:
    """Decode hexadecimal bytes to text.

    data: hexadecimal digits
    """
    return bytes.fromhex(_limited(data)).decode()


@encoding.tool
def shift_letters(text: str, shift: int = 13) -> str:
    """Encipher a text by shifting its letters in the alphabet.

    text: text to encipher
    shift: places to shift, 13 if not given
    """
    moved = {c: chr((ord(c) - 97 + shift) % 26 + 97) for c in "abcdefghijklmnopqrstuvwxyz"}
    return "".join(moved.get(c, c) for c in _limited(text).lower())


@encoding.tool
def get_checksum(text: str) -> str:
    """Compute the CRC-32 checksum of a text.

    text: text to check
    """
    return f"{zlib.crc32(_limited(text).encode()):08x}"


@encoding.task("Encode '{text}' in base64.", "[What is|I need] the base64 form of '{text}'[.| please.]")
def to_base64(_: None, rng: Random) -> Plan:
    string = phrase(rng, 1, 2)
    yield {"text": string}
    encoded = yield call(encode_base64, text=string)
    return f"The result is {encoded}"


@encoding.task("[Decode|Please decode] the hex string {data}.", "What does the hexadecimal {data} say?")
def from_hex(_: None, rng: Random) -> Plan:
    data = rng.choice(WORDS).encode().hex()
    yield {"data": data}
    decoded = yield call(decode_hex, data=data)
    return f"It says {decoded}."


@encoding.task(
    "[Encipher|Hide] '{text}' by shifting its letters [by {shift} places|{shift} places].",
    "Shift every letter of '{text}' by {shift}.",
    vague=Vague("Shift the letters of '{text}'.", "By how many places?", "[By |]{shift}"),
)
def cipher(_: None, rng: Random) -> Plan:
    string, shift = phrase(rng, 1, 2), rng.randint(1, 12)
    yield {"text": string, "shift": shift}
    hidden = yield call(shift_letters, text=string, shift=shift)
    return f"The result is {hidden}"


@encoding.task(
    "Decode the base64 string {data}, [then|and then] encode the text as hex.",
    "I have {data} in base64 and want it in hex[.|, please.]",
)
def base64_to_hex(_: None, rng: Random) -> Plan:
    data = base64.b64encode(rng.choice(WORDS).encode()).decode()
    yield {"data": data}
    decoded = yield call(decode_base64, data=data)
    encoded = yield call(encode_hex, text=decoded)
    return f"The hex form is {encoded}"


@encoding.task(
    "Decode the hex string {data}, shift the letters by {shift}, and compute the checksum of the result.",
    "What is the checksum of the text in hex {data} after shifting its letters by {shift}?",
)
def decode_shift_check(_: None, rng: Random) -> Plan:
    data, shift = rng.choice(WORDS).encode().hex(), rng.randint(1, 12)
    yield {"data": data, "shift": shift}
    decoded = yield call(decode_hex, data=data)
    hidden = yield call(shift_letters, text=decoded, shift=shift)
    checksum = yield call(get_checksum, text=hidden)
    return f"The checksum is {checksum}."

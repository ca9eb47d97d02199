"""Recognize secrets in text: names of keys, headers and variables, well-known forms of values, URLs, and encodings of a
value. Pure functions of text, used by `tltrain.runtime.redact`.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Callable, Iterator
from functools import cache, lru_cache, partial
from typing import Any
from urllib.parse import quote, quote_plus, unquote

MASK = "<masked>"  # a plain word in YAML, without a character that JSON escapes

# --- names ------------------------------------------------------------------------------------------------------------

_KEYS = (
    "access|account|admin|anthropic|api|app|auth|aws|azure|client|consumer|deploy|encryption|gemini|google|hf|hmac|hub|"
    "license|master|mistral|openai|private|provider|secret|service|shared|signing|ssh|storage|subscription|wandb"
)
_TOKENS = (
    "access|admin|anthropic|api|app|auth|azure|bearer|bot|ci|client|consumer|csrf|deploy|gh|git|github|gitlab|google|"
    "hf|hub|huggingface|id|jwt|login|mistral|npm|oauth|openai|personal|private|pypi|refresh|registry|sas|secret|"
    "security|service|session|slack|sso|user|wandb|xsrf"
)
_ALWAYS = re.compile(
    rf"(^|_)(({_KEYS})_?keys?|({_TOKENS})_token|passw(or)?ds?|passphrases?|passcode|secrets?|credentials?|"
    r"(set_|http_)?cookies?|authorization|bearer|connection_string|jwt)(_|$)|^(x_)?(auth|token|pat|pwd|dsn)$|_(pwd|pat)$"
)
_NEVER = re.compile(
    # Names of things that belong to a secret but are not secret.
    r"_(env|name|names|file|files|path|dir|directory|folder|header|scheme|prefix|format|type|count|size|length|limit|"
    r"ttl|expiry|required|enabled)$"
    # Tokens of a tokenizer.
    r"|(^|_)(pad|padding|eos|bos|unk|mask|sep|cls|start|end|stop|begin|special|image|audio|video|key|prompt|prefix|"
    r"suffix|middle|new|next|first|last|max|min|num|per|by|fill|eot|eom|boi|eoi|dataset|target|label)_tokens?$"
)
_PERHAPS = re.compile(r"(^|_)(token|key)$")
_RANDOM = re.compile(r"(?=\D*\d)(?=[^A-Za-z]*[A-Za-z])[\w.~+=-]{16,}")
_VARIABLE = re.compile(r"(^|_)(key|token|pat|auth_token)(_|$)|_pwd$")
_IN_QUERY = re.compile(r"^(key|sig|signature|code|auth|pass|pw|token|x_amz_(signature|credential|security_token))$")


@cache
def _plain(name: str) -> str:
    """Convert `X-Api-Key`, `apiKey` and `--api-key` to `x_api_key`, `api_key` and `api_key`."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip("+~-\"'\\ "))
    return re.sub(r"[^a-z0-9]+", "_", words.lower()).strip("_")


@cache
def _always(name: str) -> bool:
    plain = _plain(name)
    return bool(_ALWAYS.search(plain)) and not _NEVER.search(plain)


def names_secret(name: str, value: Any = None) -> bool:
    """Return whether a key, header or argument of this name holds a secret.

    Args:
        value: decides for ambiguous names such as `router_key`, where only a random-looking value is a secret.
    """
    if _always(name):
        return True
    plain = _plain(name)
    if not _PERHAPS.search(plain) or _NEVER.search(plain):
        return False
    return isinstance(value, str) and bool(_RANDOM.fullmatch(value))


@cache
def variable_names_secret(name: str) -> bool:
    """Return whether an environment variable of this name holds a secret."""
    plain = _plain(name)
    return not _NEVER.search(plain) and plain != "pwd" and (_always(name) or bool(_VARIABLE.search(plain)))


# --- text -------------------------------------------------------------------------------------------------------------

SHAPES = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"sk-[\w-]{16,}|hf_[A-Za-z0-9]{16,}|gh[opsru]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|"
    r"xox[abeoprs]-[\w-]{10,}|(?:AKIA|ASIA)[0-9A-Z]{16}|AIza[\w-]{30,}|npm_[A-Za-z0-9]{30,}|pypi-[\w-]{30,}|"
    r"eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"
    r")"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    re.DOTALL,
)
"""API keys with a recognizable form, JSON web tokens, and private keys in PEM."""
_VALUE = (
    r"""(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|(?:\$\{[^{}]*\}|(?!,[\w.+~@/-]{1,99}[=:]|:(?:\s|$))[^\s;&)\]}"'])+)"""
)
_ASSIGNED = re.compile(rf"(?<![\w.@-])(?P<name>[A-Za-z_+~-][\w.@\[\]-]*)(?P<sign>=|%3[Dd])(?P<value>{_VALUE})")
_PAIR = re.compile(
    rf"(?P<quote>\\?[\"'])(?P<name>[\w.-]+)(?P=quote)(?P<sign>\s*:\s*)"
    rf"(?P<value>\\\"(?:(?!\\\").)*\\\"|{_VALUE})"
)
_ENTRY = re.compile(
    r"(?P<before>[{,]\s*)(?P<name>[A-Za-z_][\w.-]*)(?P<sign>:\s*)(?P<value>[^\s,{}\[\]\"']+)(?=[^{}]{0,999}\})"
)
_OPTION = re.compile(r"(?P<name>(?<!\S)--[A-Za-z][\w-]*)(?P<sign>\s+)(?P<value>[^\s-]\S*)")
_HEADER = re.compile(
    r"(?P<name>\b(?:proxy-)?authorization|\b(?:x-)?(?:api|auth)-(?:key|token)|\b(?:set-)?cookie)(?P<sign>[\"']?\s*[:=]\s*)"
    r"(?P<value>(?:(?:bearer|basic|token|digest)\s+)?(?:\$\{[^{}]*\}|[^\s\"',;}\]])+(?:;\s*[^\s\"',;}\]]+)*)",
    re.IGNORECASE,
)
_BEARER = re.compile(r"(?P<name>\b(?:bearer|basic))(?P<sign>\s+)(?P<value>(?=\S*[\d=])[\w.~+/=-]{6,})", re.IGNORECASE)
_USER = re.compile(
    r"(?P<name>\b[a-z][a-z0-9+.-]{0,30}://)(?P<value>[^\s/?#\"'<>]{1,500}|[^\s/?#:@\"'<>]{1,500}:(?!\d+(?:[/?#]|$))[^\s\"'<>@]{1,500})(?=@)",
    re.IGNORECASE,
)
_QUERY = re.compile(r"(?P<name>(?<=[?&;])[\w.-]+)(?P<sign>=)(?P<value>[^\s&;#\"'<>]+)")
_REFERENCES = re.compile(r"\s*(?:(?:bearer|basic|token)\s+)?(?:\$\{[^{}]*\}\s*)+", re.IGNORECASE)
_DEFAULT = re.compile(r"(\$\{oc\.env:\s*(\w+)\s*,)([^{}]*)\}")


def _named(found: re.Match[str]) -> bool:
    return names_secret(found["name"].rpartition(".")[2], found["value"].strip("\"'"))


def _in_query(found: re.Match[str]) -> bool:
    return bool(_IN_QUERY.search(_plain(found["name"]))) or _named(found)


_PLACES = (
    (_USER, lambda found: True),
    (_QUERY, _in_query),
    (_HEADER, lambda found: True),
    (_BEARER, lambda found: True),
    (_PAIR, _named),
    (_ENTRY, _named),
    (_ASSIGNED, _named),
    (_OPTION, _named),
)
"""Patterns of texts that may name a secret, each with a function that decides whether the match does."""


def masked(text: str) -> str:
    """Mask what the text itself shows to be a secret: by a name, in a URL, by a well-known form."""
    return _masked(text) if len(text) > REPEATED else _masked_once(text)


def _masked(text: str) -> str:
    for pattern, is_secret in _PLACES:
        text = pattern.sub(partial(_mask, is_secret), text)
    text = _DEFAULT.sub(lambda found: f"{found[1]}{MASK}}}" if variable_names_secret(found[2]) else found[0], text)
    return SHAPES.sub(MASK, text)


def _mask(is_secret: Callable[[re.Match[str]], bool], found: re.Match[str]) -> str:
    """Return the match with the mask in place of the value, inside its quotes."""
    value = found["value"]
    bare = value.strip("\"'\\")
    if not bare or is_reference(bare) or not is_secret(found):
        return found[0]
    quote = next((mark for mark in ('\\"', '"', "'") if value.startswith(mark)), "")
    start, end = found.start("value") - found.start(), found.end("value") - found.start()
    return f"{found[0][:start]}{quote}{MASK}{quote}{found[0][end:]}"


REPEATED = 400
"""Longest text, in characters, whose result is cached; values of a configuration are usually shorter."""
_masked_once = lru_cache(maxsize=8192)(_masked)


def is_reference(value: str) -> bool:
    """Return whether a value only refers to a secret: `${oc.env:NAME}`, also after `Bearer`, without a default."""
    return value == MASK or (bool(_REFERENCES.fullmatch(value)) and not _DEFAULT.search(value))


def without_default(value: str) -> str:
    """Return the mask for a secret value, and a reference with its default masked: `${oc.env:NAME,KEY}`."""
    bare = _DEFAULT.sub(lambda found: f"{found[1]}{MASK}}}", value)
    return bare if _REFERENCES.fullmatch(bare) else MASK


def in_urls(text: str) -> Iterator[str]:
    """Yield the passwords (or users) and secret parameters of the URLs in a text."""
    for found in _USER.finditer(text):
        user, colon, password = found["value"].partition(":")
        yield from _plain_and_coded(password if colon else user)
    for found in _QUERY.finditer(text):
        if _in_query(found):
            yield from _plain_and_coded(found["value"])


def _plain_and_coded(value: str) -> tuple[str, str]:
    return value, unquote(value)


@lru_cache(maxsize=8192)
def in_text(text: str) -> tuple[str, ...]:
    """Return the secrets in a value regardless of its key: in URLs, after `Bearer`, by a well-known form."""
    return tuple(_in_text(text))


def _in_text(text: str) -> Iterator[str]:
    yield from in_urls(text)
    for pattern in (_HEADER, _BEARER):
        for found in pattern.finditer(text):
            yield from credentials(found["value"])
    for found in SHAPES.finditer(text):
        yield found[0]
    for found in _DEFAULT.finditer(text):
        if variable_names_secret(found[2]):
            yield found[3].strip(" \"'")


def pieces(text: str) -> Iterator[str]:
    """Yield the values after names of secrets in an unparsable text, whole and in parts that an error may quote."""
    for found in re.finditer(
        r"(?P<name>[A-Za-z_][\w.-]*)\s*[:=]\s*(?P<value>(?:bearer\s+)?[^\s,{}\[\]'\"]+)", text, re.I
    ):
        if _named(found):
            yield found["value"]
            yield from re.split(r"[\s:=()]+", found["value"])


def credentials(value: str) -> Iterator[str]:
    """Yield a secret value, and the parts of it after a scheme (`Bearer KEY`) or in a cookie (`session=KEY`)."""
    value = value.strip()
    yield value
    scheme, _, rest = value.partition(" ")
    if rest and scheme.lower() in ("bearer", "basic", "token", "digest"):
        yield rest.strip()
        if scheme.lower() == "basic":
            try:
                yield base64.b64decode(rest, validate=True).decode().partition(":")[2]
            except ValueError:
                return
    elif "=" in value:
        yield from (part.partition("=")[2].strip() for part in value.split(";") if "=" in part)


# --- forms ------------------------------------------------------------------------------------------------------------

ENCODED = 8
"""Fewest characters of a value in base64 that can be told from other text."""


@cache
def forms(value: str) -> frozenset[str]:
    """Return a value, and its encodings in URLs, JSON, HTML, LaTeX, Python and base64.

    Base64 is also found within a longer text, such as `user:password` of HTTP's `Basic`: by the characters that do not
    depend on the text around the value, for each of its three alignments.
    """
    raw = value.encode("utf-8", "surrogateescape")
    quoted = {quote(raw, safe=""), quote(raw), quote_plus(raw)}
    escaped = json.dumps(value)[1:-1]
    found = {
        value,
        unquote(value),
        *quoted,
        *(re.sub(r"%[0-9A-F]{2}", lambda code: code[0].lower(), each) for each in quoted),
        escaped,
        json.dumps(value, ensure_ascii=False)[1:-1],
        json.dumps(escaped)[1:-1],
        escaped.replace("/", "\\/"),
        re.sub("[<>&']", lambda sign: f"\\u{ord(sign[0]):04x}", escaped),
        html.escape(value),
        html.escape(value, quote=False),
        html.escape(value).replace("&#x27;", "&#39;").replace("&quot;", "&#34;"),
        html.escape(escaped),
        repr(value)[1:-1],
        re.sub(r"([#$%&_{}])", r"\\\1", value),
    }
    for offset in range(3):
        code = base64.b64encode(b"\0" * offset + raw).decode()
        first = -(-offset * 8 // 6)  # characters with bits of the text before
        own = (offset + len(raw)) * 8 // 6  # and of the text after
        if own - first >= ENCODED:
            found |= {code[first:own], code[first:own].replace("+", "-").replace("/", "_")}
    return frozenset(found)

"""Shared by all HTML pages of this package: skeleton, security policy, colours, and safe text.

A page is one file that makes no network request. All text of a model, user or tool must pass through `escaped`, `line`
or `block` before it is put in a page.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

MAX_BLOCK = 1500
"""Maximum characters of one text on a page."""

STYLE = """
:root { color-scheme: light dark; --text: #1b1f24; --quiet: #57606a; --page: #fff; --box: #f4f6f8; --line: #d0d7de;
  --link: #0b62b5; --model: #6a3ea1; --good: #116329; --bad: #b3201b; --bad-box: #fdeceb; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e8ec; --quiet: #9aa4ae; --page: #14171b; --box: #1e2329;
  --line: #3a424b; --link: #6cb2ff; --model: #c9a3ff; --good: #5fd07a; --bad: #ff8f87; --bad-box: #3a1f1e; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 60rem; background: var(--page); color: var(--text);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin: 0; }
a { color: var(--link); }
pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; font: .9rem/1.45 ui-monospace, monospace;
  unicode-bidi: plaintext; }
bdi { unicode-bidi: isolate; }
.quiet { color: var(--quiet); }
details { margin: .5rem 0; } summary { cursor: pointer; color: var(--quiet); }
"""
"""Light and dark colours, and text that wraps on a phone. Each page adds its own rules."""


def policy(script_hash: str | None = None) -> Markup:
    """Return a content security policy: nothing is loaded or sent, and only the script with this hash may run."""
    script = f"; script-src '{script_hash}'; img-src data:" if script_hash else ""
    return Markup(f"default-src 'none'; style-src 'unsafe-inline'{script}; base-uri 'none'; form-action 'none'")


def head(title: str, style: str = "") -> str:
    """Return the start of a page without script, including the start of its body; `END` closes it.

    Args:
        style: the page's own rules, which follow `STYLE`.
    """
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy()}">\n'
        f"<title>{escaped(title)}</title><style>{STYLE}{style}</style></head><body>\n<h1>{line(title)}</h1>\n"
    )


END = "</body></html>\n"

# Control characters (a NUL ends the text for some readers), marks that change the writing direction, lone surrogates.
_INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    """Replace invisible characters that may do harm with the replacement character."""
    return _INVISIBLE.sub("\ufffd", text)


def escaped(text: str) -> str:
    """Escape untrusted text for HTML."""
    return escape(visible(text))


def render(template: Path, filters: Mapping[str, Callable[..., Any]] | None = None, **content: Any) -> str:
    """Render a Jinja2 template; every inserted text is made visible and escaped, except Markup."""
    environment = Environment(
        loader=FileSystemLoader(template.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
    )
    environment.filters |= filters or {}
    return environment.get_template(template.name).render(**content).lstrip()


def line(text: object, limit: int = 200) -> str:
    """Format a short text for one line, isolated so that it cannot change the writing direction around it."""
    flat = " ".join(str(text).split())
    return f"<bdi>{escaped(flat if len(flat) <= limit else flat[: limit - 1] + '…')}</bdi>"


def block(text: str, limit: int = MAX_BLOCK) -> str:
    """Format text verbatim, cut to `limit` characters."""
    if not text:
        return '<p class="quiet">(nothing)</p>'
    rest = len(text) - limit
    more = f'<p class="quiet">(and {rest:,} more characters)</p>' if rest > 0 else ""
    return f"<pre>{escaped(text[:limit])}</pre>{more}"

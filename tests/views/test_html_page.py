"""What all pages share: safe text, a security policy, and light and dark colours."""

from __future__ import annotations

from tltrain.views import html_page


def test_texts_are_only_text_and_cut_where_they_are_long():
    assert html_page.escaped("<b>\x00\u202e&\ud800") == "&lt;b&gt;\ufffd\ufffd&amp;\ufffd"
    assert html_page.line(" a\n b ") == "<bdi>a b</bdi>"
    assert html_page.line("x" * 30, 10) == f"<bdi>{'x' * 9}…</bdi>"
    assert html_page.block("") == '<p class="quiet">(nothing)</p>'
    assert html_page.block("ab<c", 2) == '<pre>ab</pre><p class="quiet">(and 2 more characters)</p>'


def test_the_policy_lets_nothing_in_but_a_script_of_ours():
    assert "script" not in html_page.policy() and html_page.policy().startswith("default-src 'none'")
    assert "script-src 'sha256-x'" in html_page.policy("sha256-x")


def test_a_head_has_the_policy_the_viewport_and_the_pages_own_style():
    head = html_page.head("<Title>", ".own { color: red }")
    assert html_page.policy() in head and "width=device-width" in head
    assert "prefers-color-scheme: dark" in head and ".own { color: red }" in head
    assert "<title>&lt;Title&gt;</title>" in head and "<Title>" not in head

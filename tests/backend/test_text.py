"""Text of other people is safe to show, and no longer than it has to be."""

import contextlib
import io

import pytest

from packnet_tf.backend.text import EscapingStream, listed, printable, quoted, shortened


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cat\x1b[2J", r"cat\x1b[2J"),
        ("a\rb\x07\x9b\x7f", r"a\rb\x07\x9b\x7f"),
        ("exe.\u202egpj", r"exe.\u202egpj"),
        ("\u2066a\u2069\u2028", r"\u2066a\u2069\u2028"),
        ("a\nb", r"a\nb"),
        ("blüe 🌼 \\x1b 猫", "blüe 🌼 \\x1b 猫"),
    ],
)
def test_control_characters_are_visible_and_other_text_stays(text, shown):
    assert printable(text) == shown
    assert printable(shown) == shown


def test_a_command_shows_its_own_lines_and_escapes_the_rest():
    screen = io.StringIO()
    with contextlib.redirect_stdout(EscapingStream(screen)):
        print("one\n\ttwo\x1b[31m", flush=True)
    assert screen.getvalue() == "one\n\ttwo\\x1b[31m\n"


def test_long_texts_keep_begin_and_end():
    text = "What happened. " + "x" * 10_000 + " What to do."
    short = shortened(text, 100)
    assert len(short) == 100
    assert short.startswith("What happened. ")
    assert short.endswith(" What to do.")
    assert shortened("as it is", 8) == "as it is"


def test_errors_of_others_are_quoted_on_one_short_line():
    assert quoted(ValueError("one\n\n  two\x1b")) == r"one two\x1b"
    assert quoted(MemoryError()) == "MemoryError"
    assert len(quoted("x" * 10**7)) == 400


def test_a_message_names_the_first_of_many():
    assert listed("ab") == "'a', 'b'"
    assert listed([]) == ""
    assert listed(map(str, range(1008))).endswith("'7' and 1,000 more")

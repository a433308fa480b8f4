"""HTML in which nothing that comes from elsewhere is more than text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


class Html(str):
    """Text that is HTML already; any other text is escaped before it becomes part of a page."""

    __slots__ = ()


def html(value: object) -> Html:
    """A value as HTML: its text, escaped; what is HTML already stays as it is.

    Characters that cannot be seen, or turn the direction of others around, stand there by their numbers: a name of a
    file may hold any.

    >>> html("<b> & 'x'"), html(Html("<b>x</b>"))
    ('&lt;b&gt; &amp; &#x27;x&#x27;', '<b>x</b>')
    """
    if isinstance(value, Html):
        return value
    return Html(escape(visible(str(value))))


def visible(text: str) -> str:
    """A text of which every character can be seen and written, those that cannot by their numbers.

    >>> visible("a" + chr(0x202E)) == "a" + chr(92) + "u202e"
    True
    """
    return "".join(letter if letter.isprintable() or letter == "\n" else ascii(letter)[1:-1] for letter in text)


def tag(name: str, *content: object, **attributes: str) -> Html:
    """An element.

    >>> tag("td", 1 < 2, class_="number")
    '<td class="number">True</td>'

    Args:
        name: Of the element.
        content: What stands in it, one after another.
        attributes: Of the element; `class_` is `class`, and `_` stands for `-`.
    """
    said = "".join(f' {key.rstrip("_").replace("_", "-")}="{html(value)}"' for key, value in attributes.items())
    return Html(f"<{name}{said}>{join(content)}</{name}>")


def join(parts: Iterable[object], between: str = "") -> Html:
    """Parts one after another."""
    return Html(between.join(html(part) for part in parts))


def paragraphs(lines: Iterable[object]) -> Html:
    """A paragraph for each line."""
    return join((tag("p", line) for line in lines), "\n")


def table(names: Sequence[object], rows: Iterable[Sequence[object]], *, caption: str) -> Html:
    """A table that scrolls by itself where the screen is narrower.

    Args:
        names: Of the columns.
        rows: Their cells; the first cell of a row names it.
        caption: What it shows.
    """
    head = tag("thead", tag("tr", *(tag("th", name, scope="col") for name in names)))
    body = tag("tbody", *(Html("\n" + _row(cells)) for cells in rows))
    # Not a <caption>, which would be as wide as the table, and scroll with it.
    return join([tag("p", caption, class_="caption"), box(tag("table", head, body, aria_label=caption), caption)], "\n")


def _row(cells: Sequence[object]) -> Html:
    first, *others = cells
    return tag("tr", tag("th", first, scope="row"), *(tag("td", cell) for cell in others))


def box(content: Html, label: str) -> Html:
    """What may be wider than the screen, and is scrolled by itself, also by the keyboard."""
    return tag("div", content, class_="box", role="region", aria_label=label, tabindex="0")

"""Figures as a part of a page: SVG without styles of its own, which take the page's colours."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from typing import IO
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from echo_torch.lab.drawing import BLUE, GREEN, KEPT, ORANGE
from echo_torch.lab.html import Html, box, tag, visible

Draw = Callable[[IO[bytes]], None]

_DARK_PAPER, _DARK_INK = (0x16, 0x19, 0x1D), (0xE6, 0xE6, 0xE6)  # as in page.css
# Lighter, to be seen as well on dark ground as on light one; other colours are light enough.
_ON_DARK = {BLUE: "#5cb3ea", ORANGE: "#ff9047", GREEN: "#3ed1a4"}
_COLOR = re.compile(r"#[0-9a-f]{6}")
_REFERENCE = re.compile(r"#([\w-]+)")
_WIDE, _LONG = 700, 1600  # pixels; beyond, a small screen scrolls the figure, or any screen
_PIXELS = 96 / 72  # in a point


class Figures:
    """The figures of one page, and the colours that they use."""

    def __init__(self) -> None:
        self._number = 0
        self._colors: set[str] = set()

    def add(self, draw: Draw, title: str, text: str) -> Html:
        """A figure with its caption.

        Args:
            draw: Writes it, as SVG, into the file that it is given.
            title: What it is: the caption.
            text: What can be seen there, for who cannot see it.
        """
        self._number += 1
        file = io.BytesIO()
        draw(file)
        root = ElementTree.fromstring(file.getvalue())
        self._adapt(root)
        _name(root, f"f{self._number}", title, text)
        svg = Html(ElementTree.tostring(root, encoding="unicode"))
        return tag("figure", box(svg, title), tag("figcaption", title))

    @property
    def dark(self) -> str:
        """CSS: what each of the colours is on dark ground."""
        values = "".join(f"{_variable(color)}:{on_dark(color)};" for color in sorted(self._colors))
        return f"@media screen and (prefers-color-scheme: dark) {{:root{{{values}}}}}\n"

    def _adapt(self, root: Element) -> None:
        """Styles become attributes, which a page may have that forbids styles, and colours variables of the page."""
        root.set("style", "fill: #000000; stroke-linejoin: round; stroke-linecap: butt")
        for element, is_kept in _walk(root):
            element.tag = element.tag.rpartition("}")[2]
            for name in list(element.attrib):
                if "}" in name:  # of XLink, which SVG needs no more
                    element.set(name.rpartition("}")[2], element.attrib.pop(name))
            for name, value in _declarations(element.attrib.pop("style", "")):
                element.set(name, value)
            if not is_kept:
                self._take_colors(element)

    def _take_colors(self, element: Element) -> None:
        for name in ("fill", "stroke"):
            color = element.get(name, "")
            if _COLOR.fullmatch(color):
                self._colors.add(color)
                element.set(name, f"var({_variable(color)}, {color})")


def on_dark(color: str) -> str:
    """What stands for a colour on dark ground: for a grey one as far from the paper as it was.

    >>> on_dark("#ffffff"), on_dark("#000000")
    ('#16191d', '#e6e6e6')
    """
    if color in _ON_DARK:
        return _ON_DARK[color]
    red, green, blue = (int(color[place : place + 2], 16) for place in (1, 3, 5))
    if not red == green == blue:
        return color
    light = red / 255
    mixed = (round(light * paper + (1 - light) * ink) for paper, ink in zip(_DARK_PAPER, _DARK_INK, strict=True))
    return "#" + "".join(f"{value:02x}" for value in mixed)


def _variable(color: str) -> str:
    return f"--_{color[1:]}"  # a name as of CSS


def _walk(element: Element, *, is_kept: bool = False) -> Iterator[tuple[Element, bool]]:
    """All elements, and whether each keeps its colours; what says nothing of the picture is removed on the way."""
    if element.get("id") == KEPT:
        element.set("fill", "#000000")  # it would inherit one that changes
        is_kept = True
    yield element, is_kept
    for child in list(element):
        if child.tag.rpartition("}")[2] in ("metadata", "style"):
            element.remove(child)
        else:
            yield from _walk(child, is_kept=is_kept)


def _declarations(style: str) -> Iterator[tuple[str, str]]:
    for declaration in style.split(";"):
        name, colon, value = declaration.partition(":")
        if colon:
            yield name.strip(), value.strip()


def _name(root: Element, prefix: str, title: str, text: str) -> None:
    """Give it its texts and its size, and names to what is referred to in it, which no other figure has."""
    _rename(root, prefix)
    width = round(float(root.attrib.pop("width").removesuffix("pt")) * _PIXELS)
    root.attrib.pop("height")
    root.attrib.pop("version", None)
    root.set("width", str(width))
    root.set("role", "img")
    root.set("aria-labelledby", f"{prefix}-title {prefix}-desc")
    if width > _WIDE:
        root.set("class", "long" if width > _LONG else "wide")
    for number, (name, words) in enumerate((("title", title), ("desc", text))):
        element = Element(name, {"id": f"{prefix}-{name}"})
        element.text = visible(words)
        root.insert(number, element)


def _rename(root: Element, prefix: str) -> None:
    referred = {
        name for element in root.iter() for value in element.attrib.values() for name in _REFERENCE.findall(value)
    }
    for element in root.iter():
        own = element.attrib.pop("id", None)
        for name, value in element.attrib.items():
            if name == "href" or value.startswith("url("):
                element.set(name, _REFERENCE.sub(rf"#{prefix}-\1", value))
        if own in referred:
            element.set("id", f"{prefix}-{own}")

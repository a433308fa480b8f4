"""The report of a run or a sweep as one page: a file that needs no other, runs nothing and asks nobody."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import echo_torch
from echo_torch.lab.html import Html, html, join, tag
from echo_torch.lab.page_figures import Figures


@dataclass
class Page:
    """A page that is being made.

    Attributes:
        title: What it is about.
        parts: Its sections, in their order.
        figures: Its figures.
    """

    title: str
    parts: list[Html] = field(default_factory=list)
    figures: Figures = field(default_factory=Figures)

    def add(self, heading: str, *content: object) -> None:
        """Add a section; what is None is left out."""
        known = [part for part in content if part is not None]
        self.parts.append(tag("section", tag("h2", heading), Html("\n"), join(known, "\n")))

    def document(self) -> str:
        """All of it."""
        style = files("echo_torch.lab").joinpath("page.css").read_text(encoding="utf-8") + self.figures.dark
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        # Nothing but this one style: no script, no image, no font, no request.
        policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
        version = f"Made by echo_torch {echo_torch.__version__}."
        return (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{html(self.title)}</title>\n<style>{style}</style>\n</head>\n<body>\n<main>\n"
            f"{tag('h1', self.title)}\n{join(self.parts, chr(10))}\n</main>\n{tag('footer', tag('p', version))}\n"
            "</body>\n</html>\n"
        )


def flag(name: str) -> str:
    """A flag that is no option of a run."""
    return f"--{name}"


def command(words: str) -> Html:
    """A command to be typed."""
    return tag("pre", tag("code", words))


def wrong(sentence: object) -> Html:
    """A sentence about what is not as it should be."""
    return tag("p", sentence, class_="wrong")


def name_of(path: Path) -> str:
    """What a directory is called, also where it is the one that one stands in."""
    return path.resolve().name

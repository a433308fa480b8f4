"""In which form pictures are drawn, and what they are called. Draws nothing itself."""

from __future__ import annotations

from pathlib import Path

from echo_torch.errors import RuleError
from echo_torch.experiments.options import Option

FORMS = ("png", "svg")
FIGURES = Option("figures", str, "png", "output", "the form of figures", choices=FORMS)


def check_figures(figures: object) -> str:
    """A form of pictures.

    Raises:
        RuleError: If there is no such form.
    """
    return str(FIGURES.check(figures))


def form_of(path: str | Path) -> str:
    """The form that the ending of a picture's name asks for.

    Raises:
        RuleError: If it asks for none of them.
    """
    form = Path(path).suffix.lower().removeprefix(".")
    if form not in FORMS:
        raise RuleError("plot", "$plot must name a file that ends in .png or .svg", repr(str(path)))
    return form


def forms_of(path: Path) -> list[Path]:
    """A picture's name in every form.

    Args:
        path: Its name without an ending.
    """
    return [path.with_name(f"{path.name}.{form}") for form in FORMS]


def picture(folder: Path, name: str, figures: str) -> Path:
    """The file that a picture is drawn into."""
    return folder / f"{name}.{figures}"


def remove_other_forms(path: Path) -> None:
    """Remove what an earlier call drew in another form, once the new picture is there: it would show older results."""
    for other in forms_of(path.with_suffix("")):
        if other != path:
            other.unlink(missing_ok=True)

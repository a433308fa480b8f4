"""Makes the tutorial of its source, docs/tutorial.py: `python docs/make_tutorial.py` runs it (a minute on one core).

It writes docs/tutorial.ipynb, the notebook with its outputs, and docs/tutorial.md with the pictures in docs/tutorial/,
the same as a page. It needs `pip install -r .ci/tutorial.txt`.
"""

from __future__ import annotations

import base64
import io
import json
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

DOCS = Path(__file__).parent
SOURCE, NOTEBOOK, PAGE, PICTURES = (
    DOCS / name for name in ("tutorial.py", "tutorial.ipynb", "tutorial.md", "tutorial")
)
# What is folded away, by the tag of its cell: the words to click on.
FOLDED = {"setup": "What draws the pictures and tables", "figure": "The code of this picture", "answer": "Answer"}
TITLE = "<!-- Made by docs/make_tutorial.py of docs/tutorial.py: change that one. -->\n\n"


class Page(NamedTuple):
    """A notebook as a page.

    Attributes:
        text: Markdown.
        pictures: The PNG files it shows, by name.
    """

    text: str
    pictures: dict[str, bytes]


def read_source() -> Any:
    """The notebook without outputs, every cell named by its place, so that the same source gives the same file."""
    import jupytext

    notebook = jupytext.read(SOURCE)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        if FOLDED.keys() & tags_of(cell):
            cell.metadata["jupyter"] = {"source_hidden": True}
            if "answer" in tags_of(cell):
                cell.metadata["jupyter"]["outputs_hidden"] = True
    return notebook


def tags_of(cell: Any) -> set[str]:
    """The tags of a cell."""
    return set(cell["metadata"].get("tags", []))


def run(notebook: Any) -> None:
    """Fill in the outputs of all cells.

    Raises:
        nbclient.exceptions.CellExecutionError: If a cell ends in an error, as it does where a statement is false.
        ValueError: If a cell writes to standard error: what it says there differs from machine to machine.
    """
    from nbclient import NotebookClient

    resources = {"metadata": {"path": DOCS}}
    NotebookClient(notebook, timeout=600, resources=resources, record_timing=False, coalesce_streams=True).execute()
    notebook.metadata.pop("language_info", None)  # the version of Python
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if output.get("name") == "stderr":
                raise ValueError(f"{cell.id} writes to standard error: {output.text}")
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = _with_few_colors(output.data["image/png"])


def _with_few_colors(picture: str) -> str:
    """A PNG, in base64, with a palette of its own: a third of the size, and nobody sees it."""
    from PIL import Image

    file = io.BytesIO()
    Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB").quantize(64).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def page_of(notebook: Any) -> Page:
    """The page of a notebook with its outputs, as nbformat or json reads it."""
    pictures: dict[str, bytes] = {}
    parts = []
    for folded, cells in groupby(notebook["cells"], key=_folded):
        for part in _folded_parts(folded, list(cells), pictures) if folded else _parts(cells, pictures):
            parts.append(part.strip("\n"))
    return Page(TITLE + "\n\n".join(part for part in parts if part) + "\n", pictures)


def _folded(cell: Any) -> str | None:
    return next((tag for tag in FOLDED if tag in tags_of(cell)), None)


def _parts(cells: Any, pictures: dict[str, bytes]) -> list[str]:
    parts = []
    for cell in cells:
        parts += [text(cell)] if cell["cell_type"] == "markdown" else [_code(cell), *_outputs(cell, pictures)]
    return parts


def _folded_parts(tag: str, cells: list[Any], pictures: dict[str, bytes]) -> list[str]:
    opening, closing = f"<details><summary>{FOLDED[tag]}</summary>", "</details>"
    if tag == "figure":  # the picture first, what draws it for who wants to see
        return [part for cell in cells for part in (*_outputs(cell, pictures), opening, _code(cell), closing)]
    return [opening, *_parts(cells, pictures), closing]


def text(cell: Any) -> str:
    """What a cell holds; a file has it as lines."""
    return _joined(cell["source"])


def _joined(text: Any) -> str:
    return text if isinstance(text, str) else "".join(text)


def _code(cell: Any) -> str:
    return f"```python\n{text(cell).strip()}\n```"


def _outputs(cell: Any, pictures: dict[str, bytes]) -> list[str]:
    return [_output(output, pictures) for output in cell["outputs"]]


def _output(output: Any, pictures: dict[str, bytes]) -> str:
    if output["output_type"] == "stream":
        return f"```text\n{_joined(output['text']).strip()}\n```"
    data = output["data"]
    if "image/png" in data:
        about = output["metadata"]["image/png"]
        pictures[about["name"]] = base64.b64decode(_joined(data["image/png"]))
        return f"![{about['alt']}]({PICTURES.name}/{about['name']})"
    if "text/markdown" in data:
        return _joined(data["text/markdown"])
    return f"```text\n{_joined(data['text/plain'])}\n```"


def main() -> None:
    """Run the source, and write the notebook, the page and its pictures."""
    import nbformat

    notebook = read_source()
    run(notebook)
    nbformat.write(notebook, NOTEBOOK)
    page = page_of(json.loads(NOTEBOOK.read_text()))
    PICTURES.mkdir(exist_ok=True)
    for old in PICTURES.glob("*.png"):
        old.unlink()
    for name, data in page.pictures.items():
        (PICTURES / name).write_bytes(data)
    PAGE.write_text(page.text)


if __name__ == "__main__":
    main()

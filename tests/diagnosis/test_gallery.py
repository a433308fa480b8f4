"""The gallery of mistakes: each is made once, as people make it, and found by the check that can see it.

docs/mistakes.md tells of them; its code and what is printed there are these.
"""

import inspect
import re
import textwrap
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from structures import mistakes_in_data as data
from structures import mistakes_in_hand_over as hand_over
from structures import mistakes_in_models as models
from structures import word_language_model
from support.trainers import quiet_trainer

from echo_torch import diagnosis
from echo_torch.diagnosis.auditing.gaps import StateWarning
from echo_torch.lab.console import quiet_lightning


@dataclass(frozen=True)
class Found:
    """What a check says: the faults by name, and a way to the lines that it prints."""

    faults: tuple[str, ...]
    lines: Callable[[], list[str]]


@dataclass(frozen=True)
class Mistake:
    """A kind of fault, the call that finds it, the code that makes it, and what is said of it and without it.

    Of reach and of the probe the kind is a fault as they name it, of the audit a part of its sentence.
    """

    kind: str
    call: str
    code: Any
    faulty: Callable[[], Found]
    mended: Callable[[], Found]


def reached(found):
    return Found(found.faults, lambda: [diagnosis.explain(found)])


def of_loader(make_loader, length=1200, **options):
    """What reach says of a loader that is run over its own places."""
    torch.manual_seed(1)
    return reached(diagnosis.reach_of(make_loader, length=length, **options))


def of_batches(batches):
    """What reach says of batches that say themselves where they stand."""
    return reached(diagnosis.reach(batches, stamps=data.stamps_of))


def of_model(model, **options):
    """What the probe says."""
    found = diagnosis.probe(model, models.WORDS, **options)
    return Found(found.faults, found.lines)


def of_training(module, loader, validation_loader, audit, *, num_epochs=1, **options):
    """What the audit says while the module trains."""
    with warnings.catch_warnings(record=True) as caught, quiet_lightning():
        warnings.simplefilter("always")
        trainer = quiet_trainer(max_epochs=num_epochs, log_every_n_steps=1, callbacks=[audit], **options)
        trainer.fit(module, loader, validation_loader)
    said = tuple(str(warning.message) for warning in caught if warning.category is StateWarning)
    return Found(said, lambda: list(said))


def in_loader(kind, faulty, mended, length=1200, *, code=None, **options):
    call = f"reach_of({faulty.__name__}, length={length}{in_words(options)})"
    return Mistake(
        kind,
        call,
        code or faulty,
        lambda: of_loader(faulty, length, **options),
        lambda: of_loader(mended, length, **options),
    )


def in_batches(kind, faulty, mended, lengths):
    call = "reach(batches, stamps=lambda batch: Stamps(*batch))"
    return Mistake(kind, call, faulty, lambda: of_batches(faulty(lengths)), lambda: of_batches(mended(lengths)))


def in_training(kind, faulty, mended, put_on, *, put_mended_on=None, **options):
    is_text = issubclass(faulty, word_language_model.Training)
    step = "step=batch[2].t()" if is_text else "step=batch[2], sequence=batch[3]"
    state = ", state=lambda module: module.hidden" if is_text else ""
    return Mistake(
        kind,
        f"StateAudit(stamps=lambda batch: Stamps({step}){state})",
        faulty,
        lambda: of_training(*put_on(faulty()), **options),
        lambda: of_training(*(put_mended_on or put_on)(mended()), **options),
    )


def in_model(kind, faulty, mended=models.Model, **options):
    call = f"probe({faulty.__name__}(), {models.WORDS}{in_words(options)})"
    return Mistake(kind, call, faulty, lambda: of_model(faulty(), **options), lambda: of_model(mended(), **options))


def in_carry(kind, faulty):
    call = f"probe(model, {models.WORDS}, carry={faulty.__name__})"
    healthy = models.detached_and_reset
    return Mistake(
        kind,
        call,
        faulty,
        lambda: of_model(models.Model(), carry=faulty),
        lambda: of_model(models.Model(), carry=healthy),
    )


def in_words(options):
    """Options as they stand in a call."""
    words = {name: f'"{value}"' if isinstance(value, str) else value for name, value in options.items()}
    return "".join(f", {name}={getattr(value, '__name__', value)}" for name, value in words.items())


DATA_PATH = {
    "one-step windows": in_loader("rows-skip", data.one_step_windows, data.one_step_windows_by_row),
    "shuffled chunks": in_loader("shuffled", data.shuffled_chunks, data.chunks_in_order),
    "view for transpose": in_loader("rows-skip", data.view_for_transpose, data.columns_by_transpose, time_major=True),
    "number of chunks taken for their length": in_loader(
        "rows-reread", data.count_for_length, data.chunks_of_a_length, length=240
    ),
    "rows left out when their text ends": in_loader(
        "rows-changed", data.rows_left_out, data.rows_left_unused, length=240
    ),
    "workers with a block each": in_loader(
        "rows-skip",
        data.chunks_of_two_workers,
        data.chunks_of_two_workers_in_turn,
        length=240,
        code=data.ChunksOfWorkers,
    ),
    "one chunk lost at a resume": in_loader("rows-skip", data.one_chunk_lost, data.no_chunk_lost, length=240),
    "loader begun again at a resume": in_loader(
        "rows-reread", data.begun_again_at_resume, data.no_chunk_lost, length=240
    ),
    "padding counted as read": in_loader("rows-skip", data.padding_counted, data.padding_not_counted, length=240),
    "interleaved files": in_batches(
        "other-sequence", data.interleaved_files, data.files_in_their_rows, [9, 30, 15, 21, 12]
    ),
    "rows sorted for packing": in_batches(
        "other-sequence",
        data.sorted_for_packing,
        data.sorted_and_put_back,
        torch.tensor([[3, 5, 4], [5, 2, 4], [4, 5, 3]]),
    ),
    "two callers, one state": in_batches("other-sequence", data.callers_in_turn, data.callers_side_by_side, 20),
}

OTHER = "begins in another sequence"
HAND_OVER = {
    "no reset at done": in_training(OTHER, hand_over.NoReset, hand_over.Sessions, hand_over.on_sessions),
    "reset one batch late": in_training(OTHER, hand_over.ResetOneBatchLate, hand_over.Sessions, hand_over.on_sessions),
    "encoder that silently keeps its state": in_training(
        OTHER, hand_over.SilentEncoder, hand_over.FreshEncoder, hand_over.on_sentences
    ),
    "state cut to a short last batch": in_training(
        "2 lanes but the carried state has 3",
        hand_over.CutToTheBatch,
        hand_over.Sessions,
        hand_over.on_a_short_last_batch,
        put_mended_on=hand_over.on_full_batches,
    ),
    "validation in the training's state": in_training(
        "validation",
        hand_over.OneStateForAll,
        word_language_model.Training,
        hand_over.on_text,
        put_mended_on=hand_over.on_text_of_three_columns,
        val_check_interval=3,
        num_sanity_val_steps=0,
    ),
    "state of one epoch in the next": in_training(
        "new pass", hand_over.NeverFresh, word_language_model.Training, hand_over.on_text_alone, num_epochs=2
    ),
    "first state out of the sanity check": in_training(
        "sanity",
        hand_over.FromTheSanityCheck,
        word_language_model.Training,
        hand_over.on_text,
        put_mended_on=hand_over.on_text_of_three_columns,
    ),
}

MODEL = {
    "tuple not detached": in_carry("gradient crosses the cut", models.tuple_not_detached),
    "result of detach dropped": in_carry("gradient crosses the cut", models.result_dropped),
    "state kept with its graph": in_model(
        "gradient crosses the cut", models.KeptWithItsGraph, models.Keeping, state="state"
    ),
    "state reset at every batch": in_model("state is not carried", models.BeginsAnew),
    "state not fed back": in_model("state is not carried", models.NotFedBack, models.Keeping, state="state"),
    "batch_first forgotten": in_model("rows are mixed", models.BatchFirstForgotten, inputs=models.words_of_rows),
    "both directions of a text that goes on": in_model("time runs backwards", models.BothDirections),
    "c and h exchanged": in_model("chunks differ from the whole", models.FieldsExchanged),
    "state averaged over the batch": in_carry("lanes are mixed", models.averaged),
    "state transposed": in_carry("lanes are mixed", models.transposed),
    "mask on the features": in_carry("reset is incomplete", models.mask_on_the_features),
}

GALLERY = DATA_PATH | HAND_OVER | MODEL


def test_no_name_stands_twice():
    assert len(GALLERY) == len(DATA_PATH) + len(HAND_OVER) + len(MODEL)


@pytest.mark.parametrize("name", GALLERY)
def test_a_mistake_is_found(name):
    mistake = GALLERY[name]
    found = mistake.faulty().faults
    if name in HAND_OVER:  # where the names are sentences
        assert any(mistake.kind in said for said in found), found
    else:
        assert mistake.kind in found


@pytest.mark.parametrize("name", GALLERY)
def test_the_mended_one_is_silent(name):
    assert GALLERY[name].mended().faults == ()


# --- docs/mistakes.md -------------------------------------------------------------------------------------------

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "mistakes.md").read_text()
OF_EVERY_LOADER = re.compile(r" Neither a lag nor the places of answers are given.*")


def section_of(name):
    """What the page shows of a mistake: the code, the call, and what is printed."""
    mistake = GALLERY[name]
    kind = "" if name in HAND_OVER else f"`{mistake.kind}`: "
    lines = [OF_EVERY_LOADER.sub(" ...", line) for line in mistake.faulty().lines()]
    said = "\n".join(textwrap.fill(line, 118, subsequent_indent="  ", break_on_hyphens=False) for line in lines)
    code = inspect.getsource(mistake.code)
    return f"```python\n{code}```\n\n{kind}`{mistake.call}` says\n\n```text\n{said}\n```\n\nCure: "


@pytest.mark.parametrize("name", GALLERY)
def test_the_page_shows_what_is_run_and_what_is_printed(name):
    (section,) = re.findall(rf"^### {re.escape(name)}\n.+?\n\n(```.+?Cure: )\S", PAGE, flags=re.DOTALL | re.MULTILINE)
    assert section == section_of(name)


def test_the_page_has_the_mistakes_of_this_gallery():
    assert re.findall(r"^### (.+)$", PAGE, flags=re.MULTILINE) == list(GALLERY)
    assert re.findall(r"^\| \[(.+?)\]\((#.+?)\) \|", PAGE, flags=re.MULTILINE) == [
        (name, "#" + re.sub(r"[^\w -]", "", name.lower()).replace(" ", "-")) for name in GALLERY
    ]


@pytest.mark.parametrize("page", ["README.md", "CHANGELOG.md"])
def test_the_number_of_mistakes_is_this(page):
    assert re.findall(r"(\d+) mistakes", (ROOT / page).read_text()) == [str(len(GALLERY))]


def test_the_healthy_code_on_the_page_is_what_is_mended_to():
    for healthy in (hand_over.Sessions.training_step, models.Model.forward, models.reset, models.detached_and_reset):
        assert textwrap.dedent(inspect.getsource(healthy)) in PAGE


def test_the_calls_at_the_beginning_of_the_page_run():
    blocks = re.findall(r"```python\n(.*?)```", PAGE.partition("## Data path")[0], flags=re.DOTALL)
    places = [{"step": [[0, 1], [4, 5]], "sequence": [0, 1]}, {"step": [[2, 3], [6, 7]], "sequence": [0, 1]}]
    own = {"make_loader": data.chunks_in_order, "loader": places, "model": models.Model(), "vocabulary_size": 12}
    for block in blocks:
        exec(block, own)
    assert len(blocks) == 4
    assert own["found"].faults == ()


def test_what_the_page_says_that_none_of_them_sees():
    assert "Detached at every step" in PAGE
    assert of_model(models.DetachedAtEveryStep()).faults == ()

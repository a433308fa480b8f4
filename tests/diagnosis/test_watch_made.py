"""`watch` and datasets that make their samples: after some batches it is not followed any more how."""

import numpy as np
import pytest
import torch
from support.loops import Reader, detached, drop, train
from support.watched_models import kinds
from torch.utils.data import DataLoader, Dataset, default_collate

from echo_torch import watch
from echo_torch.diagnosis.watching import loaders as loaders_module
from echo_torch.diagnosis.watching import made as made_module
from echo_torch.diagnosis.watching.arrays import ARRAY
from echo_torch.diagnosis.watching.places import Places
from echo_torch.diagnosis.watching.regular import written_out

ROWS, STEPS, NUMBER = 4, 6, 48
IMAGES = np.random.default_rng(1).integers(0, 255, (NUMBER, STEPS, 3), np.uint8)
LISTS = np.random.default_rng(2).integers(0, 9, (NUMBER, STEPS)).tolist()
SERIES = torch.randn(NUMBER * STEPS, 3, generator=torch.Generator().manual_seed(3))


class Made(Dataset):
    """Samples that a function makes of their numbers."""

    def __init__(self, make):
        self.make = make

    def __len__(self):
        return NUMBER

    def __getitem__(self, index):
        return self.make(index)


def decoded(index):
    return torch.from_numpy(IMAGES[index] / 255.0).float().div(0.3)


def backwards(index):
    """The positions in its array lie in no strides that a tensor could have."""
    return decoded(index).flip(0)


def backwards_by_batch(index):
    return decoded(index).flip(index // ROWS % 2)


def cropped(index):
    """The first steps are left out, so that none of a row stands at the beginning of its array."""
    return decoded(index)[2:]


def turned(index):
    """The steps of an image are its columns."""
    return torch.from_numpy(IMAGES[index][:3] / 255.0).float().mul(2).T


def symbols(index):
    return torch.tensor(LISTS[index])


def labelled(index):
    return {"read": decoded(index), "label": index % 3, "weight": torch.tensor(index / 7)}


def sped_up(index):
    """Every other step of some samples."""
    return decoded(index)[:: 1 + index % 2][: STEPS // 2]


def sped_up_by_batch(index):
    return decoded(index)[:: 1 + index // ROWS % 2][: STEPS // 2]


def joined(index):
    return torch.cat([decoded(index), decoded((index + 1) % NUMBER)])


KEPT = {}


def kept(index):
    """Made once, and there for as long as the dataset."""
    if index not in KEPT:
        KEPT[index] = decoded(index)
    return KEPT[index]


def listed(index):
    """The same of a list: then the tensor tells itself where it stands."""
    if index not in KEPT:
        KEPT[index] = torch.tensor(IMAGES[index].tolist(), dtype=torch.float32)
    return KEPT[index]


def window(index):
    return SERIES[index * STEPS : (index + 1) * STEPS]


def changing(index):
    """Behind half of the samples those that follow are the windows of a series."""
    return window(index) if index >= NUMBER // 2 else decoded(index)


BUFFER = torch.zeros(ROWS, STEPS, 3)


def buffered(samples):
    """The features are new in each batch, the rest is filled into a buffer."""
    BUFFER[:] = default_collate(samples)
    return BUFFER, default_collate(samples)


def beside_a_buffer(samples):
    return buffered(samples)[::-1]


NUMBERS = np.zeros((ROWS, STEPS, 3), np.float32)


def refilled(samples):
    """An array of numpy that is the same in each batch."""
    NUMBERS[:] = np.stack([sample.numpy() for sample in samples])
    return [torch.from_numpy(NUMBERS)]


class Held:
    """A batch of which nobody sees what it holds."""

    def __init__(self, samples):
        self.read = default_collate(samples)


def held(samples):
    return [Held(samples), torch.tensor([len(samples) / 3])]


TWICE = [row for begin in range(0, NUMBER, ROWS) for _ in range(2) for row in range(begin, begin + ROWS)]


def first_of(loader):
    for batch in loader:
        part = batch["read"] if isinstance(batch, dict) else batch[0] if isinstance(batch, list | tuple) else batch
        yield part.read if isinstance(part, Held) else part


def seen_of(make, hand_on, passes=2, *, symbols=0, batch_first=True, **options):
    loader = DataLoader(Made(make), ROWS, **options)
    model = Reader(symbols=symbols, batch_first=batch_first)
    with watch() as seen:
        for _ in range(passes):
            train(model, first_of(loader), hand_on)
    assert seen.fault is None
    return seen


def told(seen):
    return seen.lines(), seen.findings, seen.tracks()


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (decoded, {}),
        (decoded, {"num_workers": 1}),
        (decoded, {"shuffle": True, "generator": torch.Generator()}),
        (backwards, {}),
        (turned, {}),
        (symbols, {"symbols": 9}),
        (symbols, {"symbols": 9, "batch_first": False}),
        (labelled, {}),
        (sped_up, {}),
        (sped_up_by_batch, {}),
        (joined, {}),
        (kept, {"sampler": TWICE}),
        (listed, {"sampler": [*range(8 * ROWS), *range(7 * ROWS, NUMBER)]}),
        (window, {}),
        (window, {"num_workers": 1}),
        (decoded, {"collate_fn": buffered}),
        (decoded, {"collate_fn": beside_a_buffer}),
        (decoded, {"collate_fn": refilled}),
        (window, {"collate_fn": held}),
    ],
)
@pytest.mark.parametrize("hand_on", [drop, detached])
def test_the_same_is_said_as_if_all_was_followed(monkeypatch, make, options, hand_on):
    if "generator" in options:
        options["generator"].manual_seed(0)
    KEPT.clear()
    quick = told(seen_of(make, hand_on, **options))
    if "generator" in options:
        options["generator"].manual_seed(0)
    KEPT.clear()
    monkeypatch.setattr(made_module, "_ENOUGH", 10**9)
    assert quick == told(seen_of(make, hand_on, **options))


@pytest.mark.parametrize(
    ("make", "is_followed"),
    [
        (decoded, False),
        (symbols, False),
        (labelled, False),
        (sped_up, True),
        (sped_up_by_batch, True),
        (backwards, False),
        (backwards_by_batch, True),
        (window, True),
    ],
)
def test_what_is_not_followed(monkeypatch, make, is_followed):
    """How a sample is made is followed in the first batches, and in one of many later ones."""
    loader, counts = DataLoader(Made(make), ROWS), [0]
    follow = Places._follow

    def counted(*given):
        counts[-1] += 1
        return follow(*given)

    monkeypatch.setattr(Places, "_follow", counted)
    monkeypatch.setattr(made_module, "_EVERY", 8)
    with watch():
        for _ in range(2):
            batches = iter(loader)
            for _ in range(len(loader)):
                counts.append(0)
                next(batches)
            counts.append(0)
    assert len(loader) == 12
    of_batches = counts[1:13] + counts[14:26]
    followed = [number for number, count in enumerate(of_batches) if count]
    assert followed == (list(range(24)) if is_followed else [0, 1, 2, 3, 4, 12, 20])


@pytest.mark.parametrize(("make", "is_regular"), [(decoded, True), (turned, True), (cropped, True), (backwards, False)])
def test_where_samples_stand_that_are_not_followed(make, is_regular):
    """Each row in an array of its own, at the same places in it; where these are regular, it takes no memory."""
    batches = iter(DataLoader(Made(make), ROWS))
    with watch() as seen:
        for _ in range(made_module._ENOUGH):
            followed = next(batches)
        places = seen._calls.places
        before, found = places.of(followed), places.where(batch := next(batches))
    assert found.is_meta == is_regular
    now = written_out(found)
    assert now.shape == batch.shape
    assert torch.equal(now % ARRAY, before % ARRAY)
    arrays = now // ARRAY
    assert torch.equal(arrays - arrays[0, 0, 0], torch.arange(ROWS)[:, None, None].expand(now.shape))
    assert arrays.min() > before.max() // ARRAY


def test_samples_of_workers_are_not_read_again_for_long(monkeypatch):
    read, fetch = [], loaders_module._Shadow.fetch
    monkeypatch.setattr(loaders_module._Shadow, "fetch", lambda *given: read.append(0) or fetch(*given))
    seen_of(decoded, drop, num_workers=1)
    assert len(read) == made_module._ENOUGH + 1  # and the sixteenth behind these


def test_a_batch_that_begins_to_hold_something_else():
    """It may hold anything, so it is unknown where its tensors stand, and all is followed again."""

    def collated(samples):
        batches.append(default_collate(samples))
        return [batches[-1], torch.tensor([1.0]) if len(batches) <= 7 else Held(samples)]

    batches = []
    seen = seen_of(decoded, detached, passes=1, collate_fn=collated)
    assert "at 1 of 12 beginnings it is not known where the rows stand" in " ".join(seen.unknown)


def test_a_sparse_tensor_in_a_batch_hides_no_lengths():
    """It has no storage that could be asked; the rest of the batch is looked at all the same."""

    def padded(index):
        length = 2 + index % 4
        return torch.tensor(LISTS[index][:length] + [9] * (STEPS - length)), length

    def collated(samples):
        rows, lengths = default_collate(samples)
        return torch.eye(2).to_sparse(), rows, lengths

    model = Reader(symbols=10, batch_first=True)
    with watch() as seen:
        for _, rows, _ in DataLoader(Made(padded), ROWS, collate_fn=collated):
            output, _ = model(rows)
            output[:, -1].square().mean().backward()
    assert [kind for kind, *_ in kinds(seen)] == ["padding-read"]


def test_other_datasets_are_not_looked_at_for_long(monkeypatch):
    looked, form_of = [], made_module.MadeSamples._form_of
    monkeypatch.setattr(made_module.MadeSamples, "_form_of", lambda *given: looked.append(0) or form_of(*given))
    seen_of(window, drop)
    assert len(looked) == made_module._UNLIKELY


def test_a_dataset_that_makes_no_more_samples(monkeypatch):
    """What was not followed is unknown; behind a batch that shows it all is followed again."""
    monkeypatch.setattr(made_module, "_EVERY", 4)
    seen = seen_of(changing, detached, passes=1)
    assert kinds(seen) == [("rows-skip", "core", 12, 12)]
    assert "at 32 of 44 hand-overs" in " ".join(seen.unknown)


def more(sample):
    return sample, sample, sample


def shorter(sample):
    return sample[1:], sample


@pytest.mark.parametrize("change", [more, shorter])
def test_a_batch_of_another_form_is_unknown(change):
    """A batch that is not followed, and does not look like those before it, stands nobody knows where."""

    def make(index):
        sample = decoded(index)
        return (sample, sample) if index < 7 * ROWS else change(sample)

    seen = seen_of(make, detached, passes=1)
    assert kinds(seen) == []
    assert "at 1 of 12 beginnings it is not known where the rows stand" in " ".join(seen.unknown)


def test_a_tensor_that_a_loader_keeps():
    """It is none that is new in each batch any more, so all is followed again."""

    def collated(samples):
        batches.append(default_collate(samples))
        return (batches[-1], torch.tensor([1.0]) if len(batches) <= 7 else BUFFER)

    batches = []
    seen = seen_of(decoded, detached, passes=1, collate_fn=collated)
    assert "at 1 of 12 beginnings it is not known where the rows stand" in " ".join(seen.unknown)

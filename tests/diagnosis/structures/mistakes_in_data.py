"""Loaders that put the rows of a batch in a wrong place, each beside the one that is meant.

A loader takes tokens. With `torch.arange(length)` for tokens the batches themselves say where their rows stand.
"""

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from echo_torch import diagnosis


def one_step_windows(tokens):
    windows = tokens.unsqueeze(-1)  # (values, 1)
    return DataLoader(windows, batch_size=25)


def one_step_windows_by_row(tokens):
    rows = tokens.view(25, -1, 1)
    return DataLoader(rows.transpose(0, 1), batch_size=None)


def shuffled_chunks(tokens):
    chunks = tokens.view(-1, 12)
    return DataLoader(chunks, batch_size=4, shuffle=True, drop_last=True)


def chunks_in_order(tokens):
    rows = tokens.view(4, -1, 12)
    return DataLoader(rows.transpose(0, 1), batch_size=None)


def view_for_transpose(tokens):
    columns = tokens.view(-1, 4)
    return columns.split(10)


def columns_by_transpose(tokens):
    columns = tokens.view(4, -1).t()
    return columns.split(10)


def count_for_length(tokens):
    rows = tokens.view(4, 5, -1)  # to be chunks of 5 steps
    return rows.unbind(2)


def chunks_of_a_length(tokens):
    rows = tokens.view(4, -1, 5)
    return rows.unbind(1)


def rows_left_out(tokens):
    texts = tokens.split([60, 60, 60, 35, 25])
    begins = range(0, 60, 5)
    return [torch.stack([text[begin : begin + 5] for text in texts if begin < len(text)]) for begin in begins]


def rows_left_unused(tokens):
    texts = tokens.split([60, 60, 60, 35, 25])
    unused = torch.full((5,), -1)
    return [
        torch.stack([text[begin : begin + 5] if begin < len(text) else unused for text in texts])
        for begin in range(0, 60, 5)
    ]


class ChunksOfWorkers(IterableDataset):
    def __init__(self, tokens):
        self.chunks = tokens.view(4, -1, 5).unbind(1)

    def __iter__(self):
        worker = get_worker_info()
        share = len(self.chunks) // worker.num_workers
        yield from self.chunks[worker.id * share : (worker.id + 1) * share]


class ChunksInTurn(ChunksOfWorkers):
    def __iter__(self):
        worker = get_worker_info()
        yield from self.chunks[worker.id :: worker.num_workers]


def chunks_of_two_workers(tokens):
    return DataLoader(ChunksOfWorkers(tokens), batch_size=None, num_workers=2)


def chunks_of_two_workers_in_turn(tokens):
    return DataLoader(ChunksInTurn(tokens), batch_size=None, num_workers=2)


def one_chunk_lost(tokens, step=6):
    chunks = tokens.view(4, -1, 5).unbind(1)
    after_the_resume = [chunk for index, chunk in enumerate(chunks) if index > step]
    return [*chunks[:step], *after_the_resume]


def no_chunk_lost(tokens, step=6):
    chunks = tokens.view(4, -1, 5).unbind(1)
    after_the_resume = [chunk for index, chunk in enumerate(chunks) if index >= step]
    return [*chunks[:step], *after_the_resume]


def begun_again_at_resume(tokens, step=6):
    chunks = tokens.view(4, -1, 5).unbind(1)
    after_the_resume = list(chunks)  # the state is in the checkpoint, the place in the text is not
    return [*chunks[:step], *after_the_resume]


def padding_counted(tokens):
    rows, position, batches = tokens.view(4, -1), torch.zeros(4, dtype=torch.long), []
    for lengths in torch.tensor([[4, 5, 5, 4], [5, 4, 5, 4], [4, 5, 4, 5]]):
        column = torch.arange(int(lengths.max()))
        words = rows.gather(1, position[:, None] + column)
        batches.append(words.where(column < lengths[:, None], -1))
        position += len(column)
    return batches


def padding_not_counted(tokens):
    rows, position, batches = tokens.view(4, -1), torch.zeros(4, dtype=torch.long), []
    for lengths in torch.tensor([[4, 5, 5, 4], [5, 4, 5, 4], [4, 5, 4, 5]]):
        column = torch.arange(int(lengths.max()))
        words = rows.gather(1, position[:, None] + column)
        batches.append(words.where(column < lengths[:, None], -1))
        position += lengths
    return batches


# --- several files, streams or callers: each batch is (step, sequence, starts) ---------------------------------


def stamps_of(batch):
    return diagnosis.Stamps(*batch)


def batch_of(chunks):
    """Rows of (file, first step): three steps of each."""
    files, begins = torch.tensor(chunks).unbind(1)
    return begins[:, None] + torch.arange(3), files, begins == 0


def interleaved_files(lengths):
    open_files, waiting, batches = [[0, 0], [1, 0], [2, 0]], [3, 4], []
    while len(open_files) == 3:
        batches.append(batch_of(open_files))
        open_files = [[file, step + 3] for file, step in open_files if step + 3 < lengths[file]]
        if len(open_files) < 3 and waiting:
            open_files.append([waiting.pop(0), 0])
    return batches


def files_in_their_rows(lengths):
    open_files, waiting, batches = [[0, 0], [1, 0], [2, 0]], [3, 4], []
    while len(open_files) == 3:
        batches.append(batch_of(open_files))
        moved = [[file, step + 3] if step + 3 < lengths[file] else None for file, step in open_files]
        open_files = [row or [waiting.pop(0), 0] for row in moved if row or waiting]
    return batches


def sorted_for_packing(lengths):
    batches, begins = [], torch.zeros(3, dtype=torch.long)
    for of_rows in lengths:
        column, rows = torch.arange(int(of_rows.max())), of_rows.argsort(descending=True)
        step = torch.where(column < of_rows[:, None], begins[:, None] + column, -1)
        batches.append((step[rows], rows))
        begins += of_rows
    return batches


def sorted_and_put_back(lengths):
    return [(step[rows.argsort()], rows.sort().values) for step, rows in sorted_for_packing(lengths)]


def callers_in_turn(num_frames):
    batches = []
    for frame in range(num_frames):
        for caller in (0, 1):  # one model, and it keeps one state
            batches.append(([[frame]], [caller]))
    return batches


def callers_side_by_side(num_frames):
    return [([[frame], [frame]], [0, 1]) for frame in range(num_frames)]

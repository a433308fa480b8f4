"""What each state of a reference case has read since it was empty: `python lineages.py PROGRAM ...` prints it as JSON.

The recurrent layers of each program are listened to while it runs. A state that comes in is followed, by its values, to
the row of the call that left it, and so back to where it was empty. What was read on this way must be one run of one
sequence of the program's data.
"""

import contextlib
import io
import json
import runpy
import sys
import warnings
from pathlib import Path

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence


def in_rows(text):
    return list(text.view(4, -1))


# Of each case the sequences that its layer reads, from the local variables of `main`.
SEQUENCES = {
    "01": lambda of: [of["loader"].dataset.series[:-1].view(-1, 1)],
    "02": lambda of: [of["text"]],
    "03": lambda of: list(of["recordings"]),
    "04": lambda of: list(of["windows"]),
    "05": lambda of: [of["jokes"]],
    "06": lambda of: [torch.from_numpy(window).view(-1, 1) for window in of["windows"]],
    "09": lambda of: in_rows(of["text"]),
    "10": lambda of: list(of["sentences"]),
    "12": lambda of: of["sessions"],
    "14": lambda of: of["episodes"],
    "15": lambda of: of["streams"],
    "16": lambda of: of["comments"],
    "17": lambda of: of["streams"],
    "18": lambda of: [of["observations"]],
    "19": lambda of: [of["first_call"].flatten(1), of["second_call"].flatten(1)],
    "22": lambda of: in_rows(of["loader"].dataset.text),
    "23": lambda of: list(of["rows"]),
    "24": lambda of: in_rows(of["train_loader"].dataset.text) + in_rows(of["validation_loader"].dataset.text),
    "26": lambda of: list(of["text"].t()),
}


class Listener:
    """Hears each call of a recurrent layer: what its rows read, with which state they begin and end."""

    def __init__(self):
        self.read = []  # of each state that was empty, what its rows have read since, call by call
        self.left = {}  # the values of a state that a row left -> its place in `read`
        self.from_nowhere = 0  # states that are not empty and that no row left
        self.with_graph = 0  # calls whose state has a graph
        self._embedding = self._observation = None

    def before(self, module, arguments):
        if type(module).__name__ == "RecurrentPolicy":  # a layer stands between what it reads and its cell
            self._observation = arguments[0]

    def after(self, module, arguments, result):
        if isinstance(module, nn.Embedding):
            self._embedding = module
        if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
            is_cell = isinstance(module, nn.RNNCellBase)
            self._call(module, arguments[0], (*arguments, None)[1], result if is_cell else result[1])

    def _call(self, layer, read, state, new_state):
        rows = self._as_data(rows_of(layer, read))
        begins, ends = (states_of(layer, fields_of(fields), len(rows)) for fields in (state, new_state))
        self.with_graph += any(field.grad_fn is not None for field in fields_of(state))
        left = {}
        for row, begin, end in zip(rows, begins, ends, strict=True):
            if begin not in self.left:
                self.from_nowhere += begin is not None
                self.read.append([])
            place = self.left.get(begin, len(self.read) - 1)
            self.read[place].append(row)
            left[end] = place
        self.left |= left

    def _as_data(self, rows):
        """The rows as they stand in the data: observations, or numbers of words in place of their vectors."""
        if self._observation is not None:
            return list(self._observation.unsqueeze(1))
        if self._embedding is None:
            return rows
        weight = self._embedding.weight.detach()
        return [(row.unsqueeze(1) == weight).all(dim=-1).int().argmax(dim=1) for row in rows]


def rows_of(layer, read):
    """What each row reads, (steps, features), without padding."""
    if isinstance(read, PackedSequence):
        padded, lengths = pad_packed_sequence(read, batch_first=True)
        return [row[:length].detach() for row, length in zip(padded, lengths, strict=True)]
    if isinstance(layer, nn.RNNCellBase):
        return list(read.detach().unsqueeze(1))
    return list(read.detach() if layer.batch_first else read.detach().transpose(0, 1))


def fields_of(state):
    return () if state is None else state if isinstance(state, tuple) else (state,)


def states_of(layer, fields, num_rows):
    """The values of each row's state as bytes; None where it is empty."""
    axis = 0 if isinstance(layer, nn.RNNCellBase) else 1
    rows = [[field.detach().select(axis, row).flatten() for field in fields] for row in range(num_rows)]
    return [torch.cat(row).numpy().tobytes() if any(part.any() for part in row) else None for row in rows]


def run_of(read, sequences):
    """Where it stands: [sequence, first step, steps]; None where it is no run of a sequence."""
    for number, sequence in enumerate(sequences):
        for begin in range(len(sequence) - len(read) + 1):
            if torch.equal(sequence[begin : begin + len(read)], read):
                return [number, begin, len(read)]
    return None


def listen(path):
    """Run a program; return what was heard."""
    heard, local = Listener(), {}

    def remember(frame, event, result):
        if event == "return" and frame.f_code.co_name == "main" and frame.f_code.co_filename == path:
            local.update(frame.f_locals)

    hooks = [register_module_forward_pre_hook(heard.before), register_module_forward_hook(heard.after)]
    error, printed = "", io.StringIO()
    sys.setprofile(remember)
    try:
        with contextlib.redirect_stdout(printed):
            runpy.run_path(path, run_name="__main__")
    except RuntimeError as raised:
        error = str(raised)
    finally:
        sys.setprofile(None)
        for hook in hooks:
            hook.remove()
    sequences = SEQUENCES[Path(path).name[:2]](local)
    return {
        "error": error,
        "printed": printed.getvalue(),
        "runs": [run_of(torch.cat(read), sequences) for read in heard.read],
        "from_nowhere": heard.from_nowhere,
        "with_graph": heard.with_graph,
    }


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    print(json.dumps([listen(path) for path in sys.argv[1:]]))

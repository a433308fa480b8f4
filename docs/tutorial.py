# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Learn to echo: a course in carried state
#
# ![One network gets all answers right, the other stays at chance](tutorial/window.png)
#
# Both networks are LSTMs, both carry their state from batch to batch, and both are asked for the number that came
# just before. One learns it within seconds. The other never will. Do you see why? Soon you do, and you can tell
# before you train.
#
# You have read *How to Learn to Echo Random Integers with LSTMs in Keras*, and you know a little PyTorch. This page
# does the same in PyTorch, and then goes where the tutorial stops.
#
# Every number and every picture here is made by the code of this page. A line that begins with *holds* is a
# statement that the program has just checked: were it false, there would be no page. The notebook
# [tutorial.ipynb](tutorial.ipynb) is the same page: install the package (`pip install -r requirements.txt`) and
# Jupyter (`pip install jupyterlab`), open the notebook with `jupyter lab`, and change what you like. All of it
# takes about a minute on one core. The page is one program from top to bottom, and what is folded away belongs to
# it: type along in a notebook, and copy the folded code. (A plain file shows no pictures and no tables: there leave
# out the code that draws them.)
#
# - The Keras tutorial once more: [the task](#1-the-task), [a loop to type](#2-a-training-loop-that-you-can-type),
#   [the mistake](#4-the-beginners-mistake), [why it fails](#5-what-does-each-row-read) and [the
#   cure](#6-a-window-of-context).
# - Beyond it: [the extensions](#8-the-extensions), [a ladder of networks](#9-a-ladder-of-networks), and what you
#   can [break yourself](#10-break-it-yourself).
# - In use: [one number at a time](#11-one-number-at-a-time), [your own data](#12-your-own-data) and [your own
#   script](#13-your-own-script).
# - [Exercises](#14-exercises), with answers to open.

# %%
import torch

torch.set_num_threads(1)  # networks this small wait longer for a second thread than it works for them
SYMBOLS = 10  # the Keras tutorial has 100; with fewer a training takes a moment

# %% tags=["setup"]
# What draws the pictures and the tables of this page. Nothing here trains.
import contextlib
import io
import shlex
import tempfile
import textwrap
from pathlib import Path

from IPython.display import Image, Markdown, display
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from echo_torch.cli import main

temporary = tempfile.TemporaryDirectory()  # runs and pictures; it goes when the notebook ends
folder = Path(temporary.name)


def show(name, words):
    """A picture of the folder; the words are for who cannot see it."""
    display(Image(filename=str(folder / name), alt=words, metadata={"name": name}))


def draw(figure, name, words):
    figure.savefig(folder / name, dpi=90)
    show(name, words)


def panels(number, width=8.0, height=2.6):
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(1, number, squeeze=False)[0]


def table(names, rows):
    lines = [names, ["---"] * len(names), *rows]
    display(Markdown("\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)))


def command(line, name, words):
    """What `python -m echo_torch LINE` does, without a new Python: the picture that it draws, and what it says."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        main([*shlex.split(line), "--plot", str(folder / name)])
    show(name, words)
    return f"$ python -m echo_torch {line} --plot {name}\n{wrapped(said.getvalue())}"


def wrapped(text):
    """Long lines go on in the next one, so that they can be read."""
    return "\n".join(textwrap.fill(line, 112, subsequent_indent="    ") for line in text.splitlines())


def holds(sentence, is_true):
    """A statement of this page; where it is false, the page ends in an error."""
    assert is_true, sentence
    print(f"holds: {sentence}")


def boxes(axes, values, y, color):
    for x, value in enumerate(values):
        axes.add_patch(Rectangle((x - 0.4, y - 0.3), 0.8, 0.6, facecolor=color, edgecolor="0.3"))
        axes.text(x, y, str(value), ha="center", va="center")


def smooth(right, over=50):
    """Shares of right answers, each over so many updates."""
    return [sum(right[k : k + over]) / over for k in range(0, len(right) - over + 1, over)]


def curves(axes, lines, over=50):
    for name, history in lines.items():
        shares = smooth([right / asked for _, right, asked in history], over)
        axes.plot([over * (k + 1) for k in range(len(shares))], shares, marker=".", label=name)
    axes.axhline(1 / SYMBOLS, color="0.4", linestyle="--", label="chance")
    axes.set(ylim=(-0.03, 1.05), xlabel="updates", ylabel="accuracy on fresh sequences")
    axes.grid(alpha=0.3)
    axes.legend(loc="center right")


# %% [markdown]
# ## 1. The task

# %% tags=["figure"]
from echo_torch import generate_sequence

values = generate_sequence(9, SYMBOLS)
figure, (axes,) = panels(1, height=2.0)
boxes(axes, values, 1, "#d1e5f0")
boxes(axes, ["?", *values[:-1]], 0, "#fddbc7")
for step in range(len(values) - 1):
    axes.annotate("", (step + 0.75, 0.33), (step + 0.15, 0.68), arrowprops={"arrowstyle": "->", "color": "0.4"})
axes.set(xlim=(-0.6, 8.6), ylim=(-0.5, 1.5), xticks=range(9), xlabel="step", yticks=[0, 1])
axes.set_yticklabels(["says", "reads"])
axes.set_title("an echo with lag 1")
draw(figure, "task.png", "Symbols in a row of boxes; below, each symbol is said again one step later")

# %% [markdown]
# A network reads random numbers, one after another. At each of them it must say the number that it read a little
# while ago. Nothing helps it to guess. It can only remember.
#
# | word | what it means here |
# |---|---|
# | symbol | one of the numbers, a whole number from 0 up |
# | step | a place in the row of symbols, counted from 0 |
# | sequence | symbols that belong together, 25 in a row; the next sequence has nothing to do with it |
# | lag | how many steps ago the symbol was read that is asked for; with lag 0 it is the one just read |
# | chance | what guessing gives: one in as many as there are symbols |
#
# One call gives a sequence. Each sequence has a number, and a number gives the same symbols today, tomorrow and on
# any machine.

# %%
from echo_torch import generate_sequence

print(generate_sequence(25, SYMBOLS, sequence=0))
print(generate_sequence(25, SYMBOLS, sequence=1))
print(f"chance: {1 / SYMBOLS:.0%}")

# %% tags=["figure"]
from echo_torch import one_hot_encode

figure, (axes,) = panels(1, width=5.0, height=3.0)
axes.imshow(one_hot_encode(values, SYMBOLS), cmap="Blues")
axes.set(xlabel="place in the vector", ylabel="step", xticks=range(SYMBOLS), yticks=range(len(values)))
axes.set_title("each symbol is one row with a single 1")
draw(figure, "one_hot.png", "A grid: each step is a row, and one square of it is filled")

# %% [markdown]
# A network reads vectors, not numbers. Each symbol becomes a vector of zeros with a single 1. So no symbol is
# larger than another, or nearer to it.

# %%
from echo_torch import one_hot_decode, one_hot_encode

values = generate_sequence(9, SYMBOLS)  # the symbols of the picture
encoded = one_hot_encode(values, SYMBOLS)
print(tuple(encoded.shape))
holds("What is encoded can be decoded again.", one_hot_decode(encoded) == values)

# %% [markdown]
# ## 2. A training loop that you can type
#
# This is the whole of it: plain PyTorch, no class of your own, nothing hidden. Type it, do not paste it. A file of
# your own also needs `import torch`, `SYMBOLS` and the import of `generate_sequence` from above, and a line for the
# statements that are checked: `def holds(sentence, is_true): print(sentence, is_true)`. The next two sections call
# the loop and say what comes out.

# %%
import torch.nn.functional as F
from torch import nn


def train_by_hand(lstm, head, *, window, batch_size, lag, first, num_sequences, carry=True, learning_rate=0.003):
    optimizer = torch.optim.Adam([*lstm.parameters(), *head.parameters()], lr=learning_rate)
    history = []  # of each update: loss, right answers, answers asked for
    for number in range(num_sequences):
        values = torch.tensor(generate_sequence(25, SYMBOLS, sequence=number))
        windows = values.unfold(0, window, 1)[first - window + 1 :]  # they end at the steps first, first + 1, ...
        asked = values[first - lag : 25 - lag]
        state = None  # reset: a sequence begins with an empty state
        for rows, answers in zip(windows.split(batch_size), asked.split(batch_size), strict=True):
            outputs, state = lstm(F.one_hot(rows, SYMBOLS).float(), state)
            scores = head(outputs[:, -1])  # each row answers once, at its last step
            loss = F.cross_entropy(scores, answers)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            state = tuple(part.detach() for part in state) if carry else None
            history.append((loss.item(), int((scores.argmax(1) == answers).sum()), len(answers)))
    return history


def new_network(hidden_size, seed=1):
    torch.manual_seed(seed)
    return nn.LSTM(SYMBOLS, hidden_size, batch_first=True), nn.Linear(hidden_size, SYMBOLS)


# %% tags=["figure"]
figure, (axes,) = panels(1, height=2.6)
for row, window in enumerate(torch.arange(8).unfold(0, 3, 1).tolist()):
    for step in window:
        axes.add_patch(Rectangle((step - 0.45, row - 0.38), 0.9, 0.76, facecolor=f"C{row // 3}", alpha=0.25))
        axes.text(step, row, str(step), ha="center", va="center")
    axes.text(7.8, row, f"row {row % 3} of batch {row // 3}", va="center")
axes.set(xlim=(-0.6, 10.5), ylim=(5.6, -0.6), xlabel="step", xticks=range(8), yticks=[])
axes.set_title("a short sequence in windows of 3 steps, in batches of 3 rows")
draw(figure, "windows.png", "Six windows, each one step further than the one above, three of them in each batch")

# %%
short = torch.tensor(generate_sequence(8, SYMBOLS))
for row, answer in zip(short.unfold(0, 3, 1).tolist(), short[1:-1].tolist(), strict=True):
    print(f"reads {row}, must say {answer}")

# %% [markdown]
# These are the rows of the picture, with symbols in them and lag 1. Each row answers once, at its last step.
#
# | word | in the loop |
# |---|---|
# | window | the steps that one row reads: `window` of them; `unfold` cuts all windows, each one step further |
# | row | one window; the first one ends at the step `first` |
# | batch | the rows that are read together: `batch_size` of them |
# | update | one `optimizer.step()`, one for each batch |
# | state | what the LSTM remembers of each row: two tensors, `hidden` and `cell` |
# | carry | hand the state of a batch to the next one: row 0's to row 0, row 1's to row 1 |
# | detach | keep the numbers of the state and cut the gradient: learning looks back to the start of the batch |
# | reset | begin with an empty state |
#
# If you think in Keras:
#
# | Keras | here |
# |---|---|
# | `LSTM(..., stateful=True)` | the state goes in and comes out: `outputs, state = lstm(inputs, state)` |
# | `model.reset_states()` | `state = None` |
# | nothing: each batch cuts the gradient by itself | `part.detach()` |
# | `Dense(..., activation="softmax")` and `categorical_crossentropy` | `nn.Linear`, `F.cross_entropy` (with softmax) |
#
# Every sequence is drawn fresh and is used once. So the accuracy in training is honest: each answer was given
# before the network learned from it.

# %% [markdown]
# ## 3. Echo: say what you read
#
# Lag 0, one step at a time, one row in a batch. Each batch begins with an empty state: there is nothing to
# remember.

# %%
echo = train_by_hand(*new_network(15), window=1, batch_size=1, lag=0, first=0, num_sequences=30, carry=False)

# %% tags=["figure"]
figure, (axes,) = panels(1)
curves(axes, {"echo": echo})
draw(figure, "echo.png", "The accuracy of echo rises from chance to 1")


# %%
def share(history, last):
    """The share of right answers in the last updates."""
    return sum(right for _, right, _ in history[-last:]) / sum(asked for *_, asked in history[-last:])


print(f"accuracy in the last 250 updates: {share(echo, 250):.1%}")
holds("Echo is learned.", share(echo, 250) >= 0.99)

# %% [markdown]
# ## 4. The beginner's mistake
#
# Now lag 1. An LSTM has a memory, so it should do to feed one step at a time, and to carry the state. All steps of
# a sequence but the first are asked. They are read in batches of 6 rows, one step each, and the state is carried
# from batch to batch, as in the Keras tutorial.

# %%
mistake = train_by_hand(*new_network(50), window=1, batch_size=6, lag=1, first=1, num_sequences=180)

# %% tags=["figure"]
figure, (axes,) = panels(1)
curves(axes, {"the beginner's mistake": mistake})
draw(figure, "mistake.png", "The accuracy stays at chance from the first update to the last")


# %%
def is_chance(history, last):
    """Whether the share lies within four standard deviations of chance."""
    asked, chance = sum(asked for *_, asked in history[-last:]), 1 / SYMBOLS
    return abs(share(history, last) - chance) < 4 * (chance * (1 - chance) / asked) ** 0.5


print(f"accuracy in the last 300 updates: {share(mistake, 300):.1%}")
holds("The beginner's mistake stays at chance.", is_chance(mistake, 300))

# %% [markdown]
# Nothing is learned, and no error was raised. Longer training does not help, nor does [another learning
# rate](findings.md#no-comparison-here-rests-on-one-learning-rate). Why?
#
# ## 5. What does each row read?
#
# A command draws what each row of the batch reads, and says what follows from it. The table below has the words that
# are new.

# %% tags=["figure"]
print(
    command(
        "reach --mode stateful --vocabulary-size 10",
        "stateful.png",
        "Each row of the batch reads every sixth step, and never the one that it is asked for",
    )
)

# %% [markdown]
# The package has each of these experiments under a name; this part of it is *the laboratory*. There the
# beginner's mistake is called `stateful`. `configure` takes a name and options, and `Plan` has what is known of a
# run before it begins: its batches, its network.

# %%
from echo_torch import configure
from echo_torch.lab import Plan

plan = Plan(configure("stateful", vocabulary_size=SYMBOLS))
first, second = (chunk.step[:, 0].tolist() for chunk in plan.first_chunks(2))
rows = [[lane, first[lane], second[lane], second[lane] - 1] for lane in (0, 5)]
table(["row", "batch 0 reads step", "batch 1 reads step", "and is asked for step"], rows)

# %% [markdown]
# In the picture above look at the first line of boxes. It is row 0 of the batch, which is called a *lane*: a row
# whose state is carried. It reads step 1, and its state is handed to the next batch. There the same lane reads
# step 7. It is asked for step 6. It has never seen step 6: lane 5 has read it, one batch before.
#
# The symbol that is asked for never enters the memory that is asked for it. No training can mend that.
#
# | word | what it means here |
# |---|---|
# | chunk | what one batch holds: rows, and some steps of each; on this page another word for batch |
# | lane | one row of the batch, whose state is carried from batch to batch |
# | hand-over | a lane reads on with the state that it had before |
# | target | the symbol that a row must say, a question's answer |
# | gap | the steps that a lane skips at a hand-over; 0: it goes on where it stopped |
# | reach | which earlier steps a lane has read since its reset |
# | ceiling | the best accuracy that any network could have on these batches |
#
# The command above trains nothing. It follows each lane through the batches and counts. In Python it is one call:

# %%
found = plan.reach()
print(f"gap {found.gap}; lags within reach: {found.reachable_lags}; ceiling {found.ceiling:.0%}")
holds("The ceiling of the beginner's mistake is chance.", found.ceiling == 1 / SYMBOLS)
holds("The lag that is asked for is not within reach.", 1 not in found.reachable_lags)

# %% [markdown]
# `python -m echo_torch show --mode stateful --vocabulary-size 10` says the same line by line: a row's step, what
# it reads, what it must say, and where its state comes from.

# %%
is_shown = main(shlex.split("show --mode stateful --vocabulary-size 10"))

# %% [markdown]
# The Keras tutorial says that the errors are not propagated back through the sequence. That is true of these
# batches, and it is not the reason:
# [findings](findings.md#the-beginners-mistake-cannot-be-learned-even-with-full-backpropagation) removes the cut,
# and the network stays at chance.
#
# ## 6. A window of context

# %% tags=["figure"]
print(
    command(
        "reach --mode lag --vocabulary-size 10",
        "lag.png",
        "Each row reads five steps, the one that it is asked for among them, and goes on where it stopped",
    )
)

# %% [markdown]
# Each row reads 5 steps now and answers at the last of them. What it is asked for stands in its own window. The
# loop is the same, line for line. As in the Keras tutorial the very first window is left out, so 20 rows are
# left, 4 batches of 5. (The loop needs full batches: a state has a row for each lane, and PyTorch refuses it
# where a batch has fewer. The laboratory takes any batch size.)

# %%
windowed = {"window": 5, "batch_size": 5, "lag": 1, "first": 5, "num_sequences": 180}
lag = train_by_hand(*new_network(50), **windowed)
print(f"{25 - windowed['first']} rows of a sequence, {len(lag) // 180} batches; {len(lag)} updates in all")

# %% tags=["figure"]
figure, (axes,) = panels(1)
curves(axes, {"the beginner's mistake": mistake, "a window of 5 steps": lag})
draw(figure, "window.png", "With a window the accuracy rises to 1, without it stays at chance")

# %%
print(f"accuracy in the last 300 updates: {share(lag, 300):.1%}")
holds("With a window the lag is learned.", share(lag, 300) >= 0.99)

# %% [markdown]
# You have reproduced the Keras tutorial: echo, the mistake, and the cure. You have also seen something that it does
# not show: whether a network *can* learn is written in the batches.
#
# ## 7. The same by one command
#
# The laboratory has these three experiments, with the Keras tutorial's sizes, as `python train.py --mode lag` and
# so on. In Python it is `train`. Does it do what you typed? Give your loop the first weights of its run, and
# compare each loss.

# %%
from echo_torch import RunDirectory, train

configuration = configure(
    "lag", vocabulary_size=SYMBOLS, learning_rate=0.003, updates=200, log_every=1, accelerator="cpu"
)
run = RunDirectory(folder / "compared")
train(configuration, run)
metrics = run.read_metrics()  # a row for each update

weights = Plan(configuration).model()  # the first weights of that run
by_hand = train_by_hand(weights.lstm, weights.head, **{**windowed, "num_sequences": 50})  # 4 updates of each

# %% tags=["figure"]
figure, axes = panels(1)
axes[0].plot(metrics["loss"], color="C0", linewidth=5, alpha=0.3, label="train(...)")
axes[0].plot([loss for loss, *_ in by_hand], color="C3", linewidth=1, label="typed by hand")
axes[0].set(xlabel="updates", ylabel="loss")
axes[0].legend()
draw(figure, "compared.png", "The losses of both loops lie on top of each other")

# %%
apart = max(abs(one - loss) for one, (loss, *_) in zip(metrics["loss"], by_hand, strict=True))
same = [round(one * asked) == right for one, (_, right, asked) in zip(metrics["accuracy"], by_hand, strict=True)]
print(f"{len(by_hand)} updates")
holds("No loss differs by more than 0.0001.", apart <= 0.0001)
holds("In every update both gave the same number of right answers.", all(same))

# %% [markdown]
# The laboratory adds what a long training needs: checkpoints from which a run goes on exactly, an evaluation with
# its interval, and a warning when lanes skip steps. You can take the parts singly. Lightning is a library whose
# `Trainer` runs the training loop for you; `EchoModule` is a module for it that carries the state.

# %%
import logging
import warnings

import pytorch_lightning as pl

from echo_torch import EchoLSTM, EchoModule, EchoStream, RandomSymbols, WindowLayout, evaluate, frame_windows

logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", module="pytorch_lightning")  # advice for large data

layout = WindowLayout(frame_windows(25, window_length=5, lag=1, num_dropped=1), length=25, batch_size=5)
torch.manual_seed(1)
module = EchoModule(EchoLSTM(SYMBOLS, hidden_size=50), learning_rate=0.003)
trainer = pl.Trainer(
    max_steps=500,
    accelerator="cpu",
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(module, EchoStream(layout, RandomSymbols(SYMBOLS)).loader())

fresh = EchoStream(layout, RandomSymbols(SYMBOLS, split="evaluation"), num_chunks=800)
answered = evaluate(module.model, fresh)
print(f"{answered.accuracy:.1%} of {answered.asked:,} fresh targets")
holds("Under Lightning the lag is learned too.", answered.accuracy >= 0.99)

# %% [markdown]
# An `EchoStream` hands out chunks in order, laid out as its layout says: here windows, of which the first is left
# out. Each chunk says where its rows stand, and which are reset.
#
# ## 8. The extensions
#
# The Keras tutorial ends with ideas for its reader. Here they are, the first four with a picture of what the rows
# read. Each is trained on 80 to 500 sequences. The tutorial's own sizes are in the
# [README](../README.md#the-experiments).


# %%
def train_mode(name, mode, **options):
    """Train, and evaluate on 1000 fresh sequences."""
    chosen = {"vocabulary_size": SYMBOLS, "learning_rate": 0.003, "accelerator": "cpu", **options}
    return train(configure(mode, **chosen), RunDirectory(folder / name))


def run_mode(name, mode, **options):
    """The same, and say what was found."""
    result = train_mode(name, mode, **options)
    print(f"{name}: accuracy {result['accuracy']:.1%}, ceiling {result['ceiling']:.1%}")
    return result


# %% [markdown]
# ### Symbols that are missing

# %% tags=["figure"]
said = command(
    "reach --mode lag --missing 0.2 --vocabulary-size 10",
    "missing.png",
    "As before, and some steps are empty boxes: their symbols are missing",
)

# %% [markdown]
# A fifth of the symbols cannot be read; a vector of zeros stands in their place. Their echo is asked all the same.
# What was never read can only be guessed, so the ceiling falls. (A result may lie a little above it: guesses can be
# lucky.)

# %%
missing = run_mode("missing", "lag", missing=0.2, sequences=250)
holds("It comes within 2 % of its ceiling.", missing["accuracy"] >= missing["ceiling"] - 0.02)

# %% [markdown]
# ### A window for every step: masked input

# %% tags=["figure"]
said = command(
    "reach --mode masked --vocabulary-size 10",
    "masked.png",
    "The first windows begin before the sequence, where there is nothing to read",
)

# %% [markdown]
# The first steps have no full window. So far they were left out. Here each step has its window. What lies before
# the sequence is missing: it is masked, and a vector of zeros stands in its place. The question at step 0 has no
# answer and is not asked.

# %%
masked = run_mode("masked", "masked", sequences=250)
holds("Masked input is learned.", masked["accuracy"] >= 0.99)

# %% [markdown]
# ### The sequence as it unfolds: padded input

# %% tags=["figure"]
said = command(
    "reach --mode whole --length 7 --vocabulary-size 10",
    "whole.png",
    "Row by row the sequence grows by one step; the rest of each row is padding",
)

# %% [markdown]
# Each row reads the sequence from its beginning, one step more than the row before. Short rows are padded on the
# right, and each is asked at its last real step. No state is carried: a row holds all that there is. (The picture
# has sequences of 7 steps, so that it fits.)

# %%
whole = run_mode("whole", "whole", sequences=80)
holds("The unfolding sequence is learned.", whole["accuracy"] >= 0.99)

# %% [markdown]
# ### One in, one out: the whole sequence

# %% tags=["figure"]
said = command(
    "reach --mode sequence --vocabulary-size 10",
    "sequence.png",
    "One row reads the whole sequence and is asked at each step",
)

# %% [markdown]
# One row reads the whole sequence and answers at every step. The gradient goes through all of it. This is what an
# LSTM is for, and it is the shortest program.

# %%
sequence = run_mode("sequence", "sequence", sequences=500)
holds("One in, one out is learned.", sequence["accuracy"] >= 0.99)

# %% [markdown]
# ### Other lags, and a state that is in the way
#
# The tutorial expects that lags up to 4 can be learned by the same network, because the answer stands in the
# window. Each lag is trained twice: the state carried as in the tutorial, and reset at every batch.

# %%
lags = {}
for steps_ago in (1, 2, 3, 4):
    for carry in ("keep", "reset"):
        name = f"lag {steps_ago}, {carry}"
        lags[steps_ago, carry] = train_mode(name, "lag", lag=steps_ago, carry=carry, sequences=250)
both = [(n, lags[n, "keep"]["accuracy"], lags[n, "reset"]["accuracy"]) for n in (1, 2, 3, 4)]
table(["lag", "state carried", "state reset"], [[n, f"{keep:.1%}", f"{reset:.1%}"] for n, keep, reset in both])

# %% tags=["figure"]
figure, (left, right) = panels(2, width=9.0, height=3.2)
for carry, shift, label in (("keep", -0.2, "state carried"), ("reset", 0.2, "state reset")):
    left.bar([n + shift for n in (1, 2, 3, 4)], [lags[n, carry]["accuracy"] for n in (1, 2, 3, 4)], 0.4, label=label)
    right.plot(lags[4, carry]["accuracy_by_chunk"], marker="o", label=label)
for axes in (left, right):
    axes.axhline(1 / SYMBOLS, color="0.4", linestyle="--", label="chance")
    axes.set(ylim=(0, 1.05))
left.set(xlabel="lag", ylabel="accuracy", title="each lag", xticks=[1, 2, 3, 4])
right.set(xlabel="batch of the sequence", title="lag 4, batch by batch", xticks=[0, 1, 2, 3])
figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=3)
draw(figure, "lags.png", "The larger the lag, the worse the carried state; lag 4 is right in the first batch alone")

# %% [markdown]
# Look at the right picture. With the state carried, lag 4 is answered in the first batch of a sequence, where the
# state is empty. From the second batch on, a state is handed over, and most answers are wrong. The answer stands in
# the window all the same.
#
# This is *interference*: what is handed over makes answers wrong that are right from an empty state. Ask the very
# same weights again, with the state reset at every batch:

# %%
carried = lags[4, "keep"]
print(f"lag 4 as it was trained: {carried['accuracy']:.1%}")
print(f"the same weights, reset: {carried['accuracy_reset']:.1%}")
holds("With the state reset, each lag is learned.", all(lags[n, "reset"]["accuracy"] >= 0.99 for n in (1, 2, 3, 4)))
holds("With the state carried, lag 4 is not learned in as many sequences.", carried["accuracy"] < 0.7)
holds("The same weights are right again from an empty state.", carried["accuracy_reset"] > 0.8)

# %% [markdown]
# Why? The gradient is cut at the start of every batch. So no gradient teaches the network to hand over a state
# that does no harm: nothing that comes after a hand-over reaches back to what was handed over. With many seeds
# and the tutorial's sizes it is [the same](findings.md#the-carried-state-is-in-the-way-interference). At lag 1 a
# carried state costs time alone; why it costs more with each lag is not known.
#
# ## 9. A ladder of networks
#
# From here on the batches are laid out as one does it in practice: a long series is cut into 32 lanes, which are
# read a few steps at a time, and each step is asked. Each network takes away one defect of the network before. The
# next defect may show then, so the accuracy need not rise. Two lags are asked for, 1 and 2, and a chunk holds 2 steps
# of each lane.

# %%
from echo_torch import EchoMLP, EchoRNN, detach_state

LANES = 32


def in_order(series, lanes, chunk):
    """The series is cut into pieces, and neighbours stand side by side in a batch, as a DataLoader gives them."""
    return series.unfold(0, chunk, chunk).split(lanes)


def by_lane(series, lanes, chunk):
    """Each lane has a part of the series, and goes on in each batch where it stopped."""
    return series.view(lanes, -1).split(chunk, dim=1)


# %% tags=["figure"]
def draw_cut(axes, cut, title):
    for number, batch in enumerate(cut(torch.arange(24), 4, 2)):
        for lane, steps in enumerate(batch.tolist()):
            for column, step in enumerate(steps):
                x, color = 2.4 * number + column, f"C{number}"
                axes.add_patch(Rectangle((x - 0.45, lane - 0.35), 0.9, 0.7, facecolor=color, alpha=0.25))
                axes.text(x, lane, str(step), ha="center", va="center")
    axes.set(xlim=(-0.7, 6.6), ylim=(3.6, -0.6), yticks=range(4), ylabel="lane", title=title)
    axes.set_xticks([0.5, 2.9, 5.3], ["batch 0", "batch 1", "batch 2"])


figure, (left, right) = panels(2, height=2.4)
draw_cut(left, in_order, "in_order: after 1 lane 0 reads 8")
draw_cut(right, by_lane, "by_lane: after 1 lane 0 reads 2")
draw(figure, "cuts.png", "The steps that four lanes read in three batches, cut in two ways")

# %% [markdown]
# Both pictures hold the same 24 steps in batches of the same shape. On the left the state of lane 0 has read step 1
# and is handed to step 8. On the right it goes on at step 2: the batches are *aligned*.


# %%
def climb(model, lag, *, chunk=2, cut=by_lane, carry=True, updates=300):
    """Train on one long series, and give the share of right answers in the last 100 updates."""
    length = LANES * chunk * updates
    series = torch.randint(SYMBOLS, (length,), generator=torch.Generator().manual_seed(1))
    echo = torch.cat([torch.full((lag,), -100), series[:-lag]])  # -100: not asked
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    state, right, asked = model.initial_state(LANES), 0, 0
    for number, (symbols, targets) in enumerate(zip(cut(series, LANES, chunk), cut(echo, LANES, chunk), strict=True)):
        scores, state = model(symbols, state)
        loss = F.cross_entropy(scores.flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        state = detach_state(state) if carry else model.initial_state(LANES)
        if number >= updates - 100:
            right, asked = right + int((scores.argmax(-1) == targets).sum()), asked + targets.numel()
    return right / asked


ladder = []


def rung(name, make_model, defect, **options):
    """Train a network for both lags, and show the ladder so far."""
    shares = []
    for steps_ago in (1, 2):
        torch.manual_seed(1)
        shares.append(climb(make_model(), steps_ago, **options))
    ladder.append((name, *shares, defect))
    table(["network", "lag 1", "lag 2", "defect"], [[n, f"{a:.1%}", f"{b:.1%}", why] for n, a, b, why in ladder])
    return shares


# %% [markdown]
# **No memory.** One layer that sees the symbol just read, and nothing else.

# %%
memoryless = rung("no memory", lambda: EchoMLP(SYMBOLS, 50, window_length=1), "sees one symbol")
holds("Without a memory both lags stay near chance.", all(abs(one - 1 / SYMBOLS) < 0.03 for one in memoryless))

# %% [markdown]
# **A window.** The same layer sees the last 2 symbols side by side. Lag 1 lies inside the window, and lag 2
# outside. (The last symbols are its state: they are handed over from batch to batch, too.) For each lag the window
# must be wide enough, and each step of it has weights of its own.

# %%
window = rung("window of 2", lambda: EchoMLP(SYMBOLS, 50, window_length=2), "its window ends")
holds("The window answers what lies inside it, and nothing else.", window[0] >= 0.99 and window[1] < 0.15)

# %% [markdown]
# **A recurrence, its state thrown away.** An RNN has no window: it reads step by step and keeps a state. But each
# batch begins with an empty one. At the first step of a chunk the network knows nothing of the step before.

# %%
forgetful = rung("RNN, state reset", lambda: EchoRNN(SYMBOLS, 50), "forgets at every batch", carry=False)
expected = (1 + 1 / SYMBOLS) / 2
print(f"half of the answers of lag 1 stand in the chunk, and the others are guessed: {expected:.0%}")
holds("That is what lag 1 gets.", abs(forgetful[0] - expected) < 0.03)

# %% [markdown]
# **The state carried, the batches in order.** Now the state is handed on. The batches come as a DataLoader gives
# them, with neighbours side by side.

# %%
skipping = rung("RNN, carried, in order", lambda: EchoRNN(SYMBOLS, 50), "lanes skip steps", cut=in_order)
holds("A state that is handed to the wrong place is worth nothing.", abs(skipping[0] - expected) < 0.03)

# %% [markdown]
# **The state carried, the batches aligned.** One line differs: `by_lane` instead of `in_order`.

# %%
aligned = rung("RNN, carried, by lane", lambda: EchoRNN(SYMBOLS, 50), "gradient ends too soon")
holds("Lag 1 is learned.", aligned[0] >= 0.99)
holds("Lag 2 is better than chance, and far from learned.", 0.15 < aligned[1] < 0.6)

# %% [markdown]
# Lag 2 is within reach now: each lane has read what it is asked for. But the state is detached at the start of
# every chunk of 2 steps, and the answer always lies before that. (At lag 1 every other answer lies in the chunk, and
# what is learned from these serves the others, too.) No gradient gets from the question to the step
# where the symbol was read. What is right beyond chance is what the state happens to keep. How far back a
# gradient gets is called the *horizon*.
#
# **A longer chunk.** 6 steps instead of 2.

# %%
longer = rung("RNN, by lane, chunks of 6", lambda: EchoRNN(SYMBOLS, 50), "none for these lags", chunk=6)
holds("Both lags are learned.", min(longer) >= 0.99)

# %% tags=["figure"]
figure, (axes,) = panels(1, width=9.0, height=3.2)
places = range(len(ladder))
for column, shift in ((1, 0.2), (2, -0.2)):
    axes.barh([n - shift for n in places], [row[column] for row in ladder], 0.38, label=f"lag {column}")
axes.axvline(1 / SYMBOLS, color="0.4", linestyle="--", label="chance")
axes.set(yticks=places, xlim=(0, 1.05), xlabel="accuracy in the last 100 updates", title="the ladder")
axes.set_yticklabels([row[0] for row in ladder])
axes.invert_yaxis()
axes.legend(loc="lower left", bbox_to_anchor=(1, 0))
draw(figure, "ladder.png", "Bars of both lags for the six networks: only the last one has both at 1")

# %% [markdown]
# **Room in the state.** The network had 50 units. With fewer there is less room for what it must remember.

# %%
room = {}
for hidden_size in (1, 4, 8):
    torch.manual_seed(1)
    room[hidden_size] = climb(EchoRNN(SYMBOLS, hidden_size), 2, chunk=6)
table(["units", "accuracy of lag 2, chunks of 6"], [[size, f"{one:.1%}"] for size, one in room.items()])
holds("One unit does not do, and eight are better than one.", room[1] < 0.5 and room[8] > room[1])

# %% [markdown]
# Four questions have come up on this page, and each has a name. *Reach*: has the lane read the answer? *Horizon*:
# does a gradient get there? *Capacity*: is there room for it in the state? *Interference*: is what is handed over
# in the way? Whenever a network with a state does not learn, ask these four.
#
# ## 10. Break it yourself
#
# Other courses tell you that batches must be aligned. Find out. Take the healthy training of lag 1 and break one
# thing at a time: the alignment, the reset, the horizon. Before you read on, say for each what you expect.
#
# Two instruments look at each of them. `reach` follows the lanes through the batches and trains nothing. `watch`
# looks on at the first 50 updates of a training: it is told nothing of the data, and it changes nothing. It
# counts each step that follows on another as a hand-over, so those inside a chunk, too, and it looks for lags up
# to 24.

# %%
from echo_torch import Stamps, reach, watch

bench = []


def experiment(name, lag, *, cut=by_lane, carry=True, chunk=2):
    """Look at a training in three ways: before, meanwhile, and after."""
    starts = torch.full((LANES,), not carry)  # which lanes are reset before each batch
    positions = cut(torch.arange(LANES * chunk * 20), LANES, chunk)  # each batch says itself where its rows stand
    # The stamps of a batch say where its rows stand and which are reset; the series is read once.
    found = reach(positions, lag, stamps=lambda batch: Stamps(step=batch, starts=starts), is_repeated=False)
    torch.manual_seed(1)
    model = EchoRNN(SYMBOLS, 50)
    with watch(model) as seen:
        accuracy = climb(model, lag, cut=cut, carry=carry, chunk=chunk)
    faults = [finding["kind"] for finding in seen.findings["findings"]]
    shares = [f"{found.reachable_share:.0%}", f"{found.in_horizon_share:.0%}"]
    bench.append([name, found.gap, *shares, ", ".join(faults) or "nothing", f"{accuracy:.1%}"])
    print(wrapped("\n".join(line for line in seen.lines() if not line.startswith("unknown"))))
    return found, faults, accuracy


healthy = experiment("healthy, lag 1", 1)

# %%
misaligned = experiment("alignment broken", 1, cut=in_order)

# %%
forgotten = experiment("reset too often", 1, carry=False)

# %%
near = experiment("horizon too short, lag 2", 2)

# %%
names = ["what is broken", "gap", "read before", "read in the same chunk", "`watch` says", "accuracy"]
table(names, bench)
holds("Nothing is said of the healthy training.", healthy[1] == [] and healthy[2] >= 0.99)
holds("`watch` names the broken alignment.", misaligned[1] == ["rows-skip"])
holds("`watch` names the state that is lost.", forgotten[1] == ["state-lost"])
holds("A short horizon is no fault, and it costs all the same.", near[1] == [] and near[2] < 0.6)

# %% [markdown]
# Read the table from left to right: *read before* is the reach, *read in the same chunk* is what the horizon holds.
# They tell before any training what the column of accuracies can hold: what was not read before can only be guessed,
# however long one trains. What was read, but never in the same chunk, may be learned or not: only the training shows
# it. (A few answers lie before the first step of a
# lane, so not even the healthy training has read them all.)
#
# [watch](watch.md) shows all its findings with their cures, and [mistakes](mistakes.md) thirty mistakes as people
# make them.
#
# ## 11. One number at a time
#
# First a network that can do it: mode `aligned` trains lanes as on the ladder, each of which goes on where it
# stopped.

# %%
streaming = run_mode("streaming", "aligned", updates=300, learning_rate=0.01)
holds("Aligned lanes are learned.", streaming["accuracy"] >= 0.99)

# %% [markdown]
# In use there are no batches: a number comes, and an answer is wanted. `OnlineEcho` keeps the state for you.

# %%
from echo_torch import OnlineEcho

online = OnlineEcho.load(folder / "streaming")
heard = generate_sequence(12, SYMBOLS, split="evaluation")
said = [online.step([number])[0] for number in heard]  # lists, as there may be several lanes; here is one
print("reads", heard)
print("says ", ["?", *said[1:]])
holds("From the second number on it says the one before.", said[1:] == heard[:-1])

# %% tags=["figure"]
figure, (axes,) = panels(1, height=1.8)
boxes(axes, heard, 1, "#d1e5f0")
boxes(axes, ["?", *said[1:]], 0, "#fddbc7")
axes.set(xlim=(-0.6, 11.6), ylim=(-0.5, 1.5), xticks=range(12), xlabel="step", yticks=[0, 1])
axes.set_yticklabels(["says", "reads"])
draw(figure, "online.png", "What the network read and what it said, one step later")

# %% [markdown]
# The first answer is a guess, as there is nothing to echo yet. `online.state` is all that it remembers: keep it,
# and go on from there whenever you like. `online.reset()` forgets.

# %%
kept = online.state
[one] = online.step([3])
[two] = online.step([7])
online.state = kept  # back to where it was
[again] = online.step([3])
print(f"after {heard[-1]} comes 3: {one}; then 7: {two}; and once more from the kept state: {again}")
holds("From the kept state it says the same again.", one == again == heard[-1] and two == 3)

# %% [markdown]
# ## 12. Your own data
#
# A file of whole numbers goes into every mode. Here is a small one: visits to a shop, day by day, with a quiet Sunday
# and some noise.

# %%
import random

draws = random.Random(1)
week = [2, 3, 3, 4, 6, 7, 0]
visits = [week[day % 7] + draws.choice([0, 0, 0, 1]) for day in range(7000)]
lines = ["day,visits", *[f"{day},{number}" for day, number in enumerate(visits)]]
(folder / "visits.csv").write_text("\n".join(lines) + "\n")
print(*lines[:5], sep="\n")


# %%
def run_own(name, mode, **options):
    chosen = {"vocabulary_size": SYMBOLS, "accelerator": "cpu", "data": str(folder / "visits.csv"), "column": "visits"}
    # "count": no warning that lanes skip steps, which is known by now
    result = train(configure(mode, **chosen, **options), RunDirectory(folder / name), audit="count")
    print(f"{name}: accuracy {result['accuracy']:.1%} on the last tenth of the file")
    return result


own = run_own("own-aligned", "aligned", lag=2, updates=300, learning_rate=0.01)
own_mistake = run_own("own-stateful", "stateful", sequences=250, learning_rate=0.003)
holds("The visits of two days ago are echoed.", own["accuracy"] >= 0.99)
holds("The beginner's mistake is better than chance here.", own_mistake["accuracy"] > 0.3)

# %% tags=["figure"]
figure, (left, right) = panels(2, width=9.0)
left.step(range(28), visits[:28], where="mid")
left.set(xlabel="day", ylabel="visits", title="four weeks of visits")
right.bar(["echo of lag 2,\nby lane", "the beginner's\nmistake"], [own["accuracy"], own_mistake["accuracy"]], 0.5)
right.axhline(1 / SYMBOLS, color="0.4", linestyle="--", label="chance of random symbols")
right.set(ylim=(0, 1.05), ylabel="accuracy")
right.legend()
draw(figure, "own.png", "Four weeks of visits, and the accuracy of both networks")

# %% [markdown]
# The beginner's mistake beats chance? It still reads the wrong steps. But these numbers can be guessed: who knows
# today's visits knows which day it may be, and so what yesterday was like. That is why the tutorial uses random
# numbers: they can only be remembered. And that is why no ceiling is given for your own data.
#
# With a file of your own the command is `python train.py --mode aligned --data visits.csv --column visits`. A
# trained run answers a list. It was trained at lag 2, so the first two numbers have nothing to echo:

# %%
from echo_torch import EchoPredictor

print(EchoPredictor.load(folder / "own-aligned").predict([2, 3, 4, 4, 6]))

# %% [markdown]
# Series of floats, of different lengths, go through the same kind of stream. `SeriesLayout` lays them on lanes
# one after another and resets a lane where a new series begins.

# %%
import numpy as np

from echo_torch import OwnSeries, SeriesLayout

series = OwnSeries([np.sin(np.arange(length) / 5) for length in (90, 40, 65, 30)])
layout = SeriesLayout(series.lengths, num_lanes=2, chunk_length=10)


def next_reading(number, step):
    """What is asked at a step of a series; nan, and so not asked, at its end."""
    return series(number, step + 1)


chunks = list(EchoStream(layout, series, targets=next_reading, num_chunks=layout.chunks_per_pass))
print(f"{len(chunks)} chunks of shape {tuple(chunks[0].symbols.shape)}; gap {reach(chunks, lag=0).gap}")

# %% tags=["figure"]
figure, (axes,) = panels(1, height=2.4)
ends = {}  # of each series: where its wave was drawn to
for chunk in chunks:
    for lane in range(2):
        begin, number = 10 * chunk.index, int(chunk.sequence[lane])
        real = int((chunk.step[lane] >= 0).sum())  # behind the end of a series a row holds padding
        if not real:
            continue
        wave = [*zip(range(begin, begin + real), lane - 0.35 * chunk.symbols[lane, :real], strict=True)]
        axes.plot(*zip(*ends.get(number, []), *wave, strict=True), color=f"C{number}")
        ends[number] = wave[-1:]
        if chunk.starts[lane]:
            axes.plot([begin, begin], [lane - 0.45, lane + 0.45], color="0.1", linewidth=3)
    axes.axvline(10 * chunk.index, color="0.85", zorder=0)
axes.set(yticks=[0, 1], ylim=(1.6, -0.6), xlabel="step of the lane, ten in a chunk", title="bars: the lane is reset")
axes.set_yticklabels(["lane 0", "lane 1"])
draw(figure, "series.png", "Four waves on two lanes, one after another; a bar where each begins")

# %% [markdown]
# `Carry` is the part that you take for a loop of your own: `begin` gives the state, with the lanes reset that
# start, and `end` keeps it, detached.

# %%
from echo_torch import Carry

torch.manual_seed(1)
core, reading = nn.GRU(1, 16, batch_first=True), nn.Linear(16, 1)
carry = Carry(lambda num_lanes: torch.zeros(1, num_lanes, 16))
optimizer = torch.optim.Adam([*core.parameters(), *reading.parameters()], lr=0.01)
errors, errors_of_again = [], []  # of each update: of the network, and of saying the same reading again
is_start = []  # whether a lane was reset
for chunk in EchoStream(layout, series, targets=next_reading, num_chunks=20 * layout.chunks_per_pass):
    outputs, state = core(chunk.symbols.unsqueeze(-1), carry.begin(chunk.starts))
    carry.end(state)
    said, asked = reading(outputs).squeeze(-1), ~chunk.targets.isnan()
    loss = (said - chunk.targets)[asked].square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    is_start.append(bool(chunk.starts.any()))
    errors.append(loss.item())
    errors_of_again.append((chunk.symbols - chunk.targets)[asked].square().mean().item())

# %% tags=["figure"]
figure, (axes,) = panels(1)
axes.semilogy(errors, label="GRU with Carry")
axes.semilogy(errors_of_again, color="0.6", label="the same reading again")
axes.set(xlabel="updates", ylabel="squared error")
axes.legend()
draw(figure, "forecast.png", "The error of the network falls below that of saying the same reading again")

# %%
late = range(len(errors) // 2, len(errors))
at_starts, elsewhere = (np.mean([errors[k] for k in late if is_start[k] == wanted]) for wanted in (True, False))
again = np.mean([errors_of_again[k] for k in late])
holds("The network does better than the same reading again.", np.mean([errors[k] for k in late]) < again)
holds("It errs more where a lane was reset.", at_starts > 2 * elsewhere)

# %% [markdown]
# The peaks are the chunks in which a lane was reset: from an empty state nobody knows where on the wave it stands.
# [examples/sensor_series.py](../examples/sensor_series.py) does this with several sensors at a time.
#
# ## 13. Your own script
#
# You have a script already? Leave it as it is, and run it under `watch`. Here is one, with a mistake that you know
# by now:

# %%
SCRIPT = """
import torch
from torch import nn
from torch.utils.data import DataLoader

torch.set_num_threads(1)
series = torch.sin(torch.arange(2001) / 5)
pairs = list(zip(series[:-1].view(-1, 10, 1), series[1:].view(-1, 10, 1)))
lstm, head, state = nn.LSTM(1, 16, batch_first=True), nn.Linear(16, 1), None
optimizer = torch.optim.Adam([*lstm.parameters(), *head.parameters()])
for inputs, targets in DataLoader(pairs, batch_size=4):
    outputs, state = lstm(inputs, state)
    state = tuple(part.detach() for part in state)
    optimizer.zero_grad()
    nn.functional.mse_loss(head(outputs), targets).backward()
    optimizer.step()
"""
script = folder / "forecast.py"
written = script.write_text(SCRIPT)

# %%
import subprocess
import sys

line = "-m echo_torch watch --plot watch.png forecast.py"
print(f"$ python {line}")
report = subprocess.run([sys.executable, *line.split()], cwd=folder, capture_output=True, text=True).stderr
print(wrapped(report))
holds("`watch` names the mistake.", "rows-skip in" in report)

# %%
show("watch.png", "What each row of the script's batches reads, and from where to where its state goes")

# %% [markdown]
# It says what is wrong and what to do. (In the picture each row counts its steps from the first one that it
# reads, so all rows begin at 0.) One line mends it: the pairs are read in another order, so that each row of the
# batch goes on where it stopped.

# %%
import runpy

mended = SCRIPT.replace(
    "DataLoader(pairs, batch_size=4)",
    "DataLoader(pairs, batch_size=4, sampler=torch.arange(len(pairs)).view(4, -1).t().flatten().tolist())",
)
(folder / "mended.py").write_text(mended)
with watch() as seen:  # the same in Python, for a program that runs already
    runpy.run_path(str(folder / "mended.py"))
print(wrapped("\n".join(seen.lines())))
holds("Of the mended script nothing is said.", not seen.faults)

# %% [markdown]
# ## 14. Exercises
#
# Say what you expect, then open the answer. In the notebook, write your own first.
#
# **1.** The beginner's mistake is asked for another lag. Which lags could its rows answer, and what is the ceiling
# of lag 6? (A question whose answer would lie before step 0 is not asked.)

# %% tags=["answer"]
found = Plan(configure("stateful", vocabulary_size=SYMBOLS, lag=6)).reach()
print(f"lags within reach: {found.reachable_lags}; ceiling of lag 6: {found.ceiling:.1%}")
holds("Lag 6 is within reach.", 6 in found.reachable_lags)

# %% [markdown] tags=["answer"]
# A lane skips 5 steps, so it reads every sixth. One question of each sequence asks for step 0, which no lane reads:
# it can only be guessed.

# %% [markdown]
# **2.** Windows of 5 steps are read in batches of 5, and the gap is 0. What is the gap with other windows and
# other batch sizes? Find the rule.

# %% tags=["answer"]
rows = []
for window in (3, 5):
    for batch_size in (3, 4, 5, 6):
        changed = configure("lag", vocabulary_size=SYMBOLS, window=window, batch_size=batch_size)
        rows.append([window, batch_size, Plan(changed).reach().gap])
table(["window", "batch size", "gap"], rows)
holds("The gap is the batch size less the window.", all(gap == batch - window for window, batch, gap in rows))

# %% [markdown] tags=["answer"]
# A window is one step further than the window above it. So from batch to batch a row moves on by as many steps as a
# batch has rows. It has read a window of them. The batches of the tutorial are aligned because two numbers happen
# to be equal.

# %% [markdown]
# **3.** Which window does the network without recurrence need for lag 2? And how many parameters does each step
# more of the window cost?

# %% tags=["answer"]
rows = []
for width in (2, 3):
    torch.manual_seed(1)
    model = EchoMLP(SYMBOLS, 50, window_length=width)
    rows.append((width, climb(model, 2), sum(weight.numel() for weight in model.parameters())))
table(["window", "accuracy of lag 2", "parameters"], [[width, f"{one:.1%}", size] for width, one, size in rows])
holds("A window of lag + 1 symbols is enough.", rows[0][1] < 0.15 and rows[1][1] >= 0.99)
print(f"each step more costs {rows[1][2] - rows[0][2]} parameters")

# %% [markdown]
# **4.** Aligned lanes, lag 2. What is the shortest chunk with which it is learned, in as many updates as on the
# ladder?

# %% tags=["answer"]
by_chunk = {}
for chunk in (1, 2, 3, 4):
    torch.manual_seed(1)
    by_chunk[chunk] = climb(EchoRNN(SYMBOLS, 50), 2, chunk=chunk)
table(["chunk", "accuracy of lag 2"], [[chunk, f"{one:.1%}"] for chunk, one in by_chunk.items()])
holds("Chunks of 1 and 2 steps do not do.", max(by_chunk[1], by_chunk[2]) < 0.6)

# %% [markdown] tags=["answer"]
# From 3 steps on some questions have their answer in the same chunk, so a gradient gets there. What is learned from
# these serves the others too. A chunk of lag + 1 steps is enough for this recipe; it is [not always
# necessary](findings.md#chunk--lag--1-is-sufficient-for-this-recipe-not-necessary).

# %% [markdown]
# **5.** A third of the symbols is missing. What is the best accuracy that any network can have?

# %% tags=["answer"]
lost = 1 / 3
print(f"by hand: {(1 - lost) + lost / SYMBOLS:.1%}")
third = run_mode("a third missing", "lag", missing=lost, sequences=250)
holds("The network comes within 2 % of that.", abs(third["accuracy"] - (1 - lost) - lost / SYMBOLS) < 0.02)

# %% [markdown] tags=["answer"]
# By hand it is what one expects; the ceiling that is printed counts the symbols that are missing in the very
# sequences that were asked.

# %% [markdown]
# **6.** Lag 4, the state carried, did not learn. Mend it without `carry="reset"`.

# %% tags=["answer"]
cured = run_mode("lag 4, one batch a sequence", "lag", lag=4, batch_size=20, updates=1000)
holds("With one batch for each sequence it is learned.", cured["accuracy"] >= 0.99)

# %% [markdown] tags=["answer"]
# One batch holds all windows of a sequence, so nothing is handed over, and nothing is in the way. (Each batch begins
# empty now, as each sequence does; with an update for each sequence it takes more of them.)

# %% [markdown]
# **7.** In the loop that you typed, `part.detach()` becomes `part`. What happens?

# %% tags=["answer"]
import inspect

typed = inspect.getsource(train_by_hand)


def changed_loop(old, new):
    """The loop that you typed, with a change."""
    names = dict(globals())
    exec(typed.replace(old, new), names)
    return names["train_by_hand"]


try:
    changed_loop("part.detach()", "part")(*new_network(50), **windowed)
except RuntimeError as error:
    ended = str(error).split(" (")[0]
print(ended)
holds("It ends in an error.", "second time" in ended)

# %% [markdown] tags=["answer"]
# The state of a batch hangs on the graph of the batch before, and PyTorch has thrown that away after its
# `backward()`. The error is a friend: it tells you that you forgot to cut.

# %% [markdown]
# **8.** Now the reset goes: each sequence begins with the state that the one before has left. (Set it to `None` once,
# before the first.) Does the window of 5 suffer?

# %% tags=["answer"]
never_reset = changed_loop("state = None  #", "state = state if number else None  #")(*new_network(50), **windowed)
print(f"accuracy in the last 300 updates: {share(never_reset, 300):.1%}, with the reset {share(lag, 300):.1%}")
holds("It learns all the same.", share(never_reset, 300) >= 0.97)

# %% [markdown] tags=["answer"]
# Each answer stands in its window, so no state is needed, and a strange one can be ignored at this lag. No error
# says that a reset is missing. That is why it is so easily forgotten.

# %% [markdown]
# ## Where to go on
#
# - [experiments](experiments.md): these and others at the tutorial's sizes, and every option.
# - [why](why.md): the four questions, each with an example. [findings](findings.md): what was measured, with many
#   seeds.
# - [questions](questions.md): what readers of the tutorial ask, each with a command.
# - [mistakes](mistakes.md) and [watch](watch.md): what goes wrong, and what finds it.
# - [own_project](own_project.md): the parts in a project of yours. [words](words.md): all words.

"""What modules are called in a report: by their dotted names, and where several bear one, by whose they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from torch import nn

_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")


class _Found(NamedTuple):
    """The name of a module, and in which model it bears it; of one that is in none, the name is that of its class."""

    name: str
    model: nn.Module | None


def names_of(modules: Sequence[nn.Module], models: Iterable[nn.Module]) -> list[str]:
    """A name for each of some modules, by which no other of them is called.

    >>> class Net(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.lstm = nn.LSTM(2, 3)
    >>> one, other, third = Net(), Net(), nn.Sequential(nn.LSTM(2, 3))
    >>> names_of([one.lstm, third[0], other.lstm], [one, other, third])
    ['lstm of the first Net', '0', 'lstm of the second Net']

    Args:
        modules: All of them, in the order in which models of one class are counted.
        models: In which they are looked for.
    """
    models = list(models)
    found = [_found(module, models) for module in modules]
    of_name = Counter(each.name for each in found)
    words = [each.name if of_name[each.name] == 1 else _with_its_model(each) for each in found]
    of_words, met, names = Counter(words), Counter[str](), []
    for each, word in zip(found, words, strict=True):
        met[word] += 1
        names.append(word if of_words[word] == 1 else _with_its_number(each, met[word]))
    return names


def _found(module: nn.Module, models: Sequence[nn.Module]) -> _Found:
    for model in models:
        for name, part in model.named_modules():
            if part is module and name:
                return _Found(name, model)
    return _Found(_class_of(module), None)


def _class_of(module: nn.Module) -> str:
    return str(getattr(module, "original_name", type(module).__name__))  # of what torch.jit has compiled


def _with_its_model(found: _Found) -> str:
    return found.name if found.model is None else f"{found.name} of {_class_of(found.model)}"


def _with_its_number(found: _Found, number: int) -> str:
    what = found.name if found.model is None else _class_of(found.model)
    which = f"the {_ORDINALS[number - 1]} {what}" if number <= len(_ORDINALS) else f"{what} no. {number}"
    return which if found.model is None else f"{found.name} of {which}"

"""What is done as soon as somebody else has imported a module, and not before."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_OWN = f"{__name__.split('.')[0]}."


class AfterImport:
    """Looks for nothing itself; it only waits until one of some modules has been imported.

    Where a module of this package imports one of them, it waits for that module too: the action may need it.

    >>> import sys
    >>> waiting = AfterImport({"wave": lambda: print("there")})
    >>> waiting.begin()
    >>> import wave
    there
    >>> waiting in sys.meta_path
    False

    Args:
        actions: What is done after the import of which module; it must not raise.
    """

    def __init__(self, actions: dict[str, Callable[[], None]]) -> None:
        self._actions = dict(actions)
        self._due: list[str] = []
        self._depth = 0  # modules of this package that are at work

    def begin(self) -> None:
        """Wait from now on; what is imported already counts as just imported."""
        sys.meta_path.insert(0, self)
        for name in list(self._actions):
            if name in sys.modules:
                self._has_imported(name)

    def end(self) -> None:
        """Wait no more."""
        self._actions.clear()
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """What the finders behind this one find; its loader tells when the module is whole."""
        if name not in self._actions and not name.startswith(_OWN):
            return None
        others = (finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec"))
        spec = next(filter(None, (finder.find_spec(name, path, target) for finder in others)), None)
        if spec is not None and hasattr(spec.loader, "exec_module"):
            self._listen(name, spec.loader)
        return spec

    def _listen(self, name: str, loader: Any) -> None:
        execute = loader.exec_module

        @functools.wraps(execute)
        def exec_module(module: ModuleType) -> None:
            del loader.exec_module  # the loader is as it was, for whoever looks at it later
            is_own = name.startswith(_OWN)
            self._depth += is_own
            try:
                execute(module)
            finally:
                self._depth -= is_own
            self._has_imported(name)

        loader.exec_module = exec_module

    def _has_imported(self, name: str) -> None:
        if name in self._actions:
            self._due.append(name)
        while self._due and self._depth == 0:
            self._act(self._due.pop(0))

    def _act(self, name: str) -> None:
        action = self._actions.pop(name, None)
        if not self._actions:
            self.end()
        if action is not None:
            action()

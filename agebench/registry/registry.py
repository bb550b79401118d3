"""One way to register: a name, and an object or where to find it."""

import contextlib
import importlib
import reprlib
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, distributions, entry_points
from typing import Any, Generic, TypeVar, overload

from agebench.errors import AgebenchError, UserError
from agebench.utils.text import did_you_mean

T = TypeVar("T")


class Registry(Generic[T]):
    """Named things of one kind: cards, readers, heads.

    A thing is registered as an object, by decorator, or lazily as `"package.module:attribute"`, which is imported on
    first use. Entry points of `group` join on first look-up. What fails to load stands in `broken()` with its reason
    and takes nothing else down.

    Args:
        kind: what one is called in messages.
        group: of entry points.
        check: returns what is wrong with an object that a plugin hands over, "" where nothing is.
    """

    def __init__(
        self, kind: str, *, group: str | None = None, check: Callable[[str, Any], str] = lambda name, item: ""
    ) -> None:
        self.kind = kind
        self._check = check
        self._group = group
        self._found: dict[str, T] = {}
        self._lazy: dict[str, str | EntryPoint] = {}
        self._broken: dict[str, str] = {}
        self._origin: dict[str, str] = {}

    @overload
    def register(self, name: str) -> Callable[[T], T]: ...
    @overload
    def register(self, name: str, target: T | str, *, origin: str = ...) -> T | str: ...
    def register(self, name: str, target: T | str | None = None, *, origin: str = "") -> T | str | Callable[[T], T]:
        """Register `target` (an object, or `"module:attribute"`) as `name`; without a target, a decorator.

        Raises:
            UserError: the name is taken; the message names both origins.
        """
        if target is None:

            def decorate(item: T) -> T:
                self.register(name, item, origin=origin or getattr(item, "__module__", ""))
                return item

            return decorate
        origin = origin or (target if isinstance(target, str) else getattr(target, "__module__", "this program"))
        if name in self._broken and name not in self._found:  # what cannot be used keeps no name from what can
            self._move_broken(name)
        if name in self._found or name in self._lazy:
            raise UserError(f"two {self.kind}s are called '{name}': {self._origin[name]} and {origin}; rename one")
        self._origin[name] = origin
        if isinstance(target, str):
            self._lazy[name] = target
        else:
            self._found[name] = target
        return target

    def register_broken(self, name: str, reason: str, *, origin: str) -> None:
        """Remember that `name` exists at `origin` and why it cannot be used."""
        if name in self._origin:
            name = f"{name} ({origin})"
        self._origin[name] = origin
        self._broken[name] = reason

    def get(self, name: str) -> T:
        """The thing called `name`, imported now if need be.

        Raises:
            UserError: no such name (with the closest ones), or it is broken (with the reason).
        """
        if not isinstance(name, str):  # from a card or config whose values are not validated yet
            raise UserError(f"{self.kind} = {reprlib.repr(name)}: a name is required, as text")
        self._join_entry_points()
        if name in self._lazy:
            self._load(name)
        if name in self._found:
            return self._found[name]
        if name in self._broken:
            raise UserError(f"{self.kind} '{name}' is broken: {self._broken[name]}")
        raise UserError(f"no {self.kind} called '{name}'{did_you_mean(name, self.names())}")

    def names(self) -> list[str]:
        """The names of all that are not known to be broken, sorted; nothing is imported."""
        self._join_entry_points()
        return sorted({*self._found, *self._lazy})

    def broken(self) -> dict[str, str]:
        """Name to reason, of what cannot be loaded. Imports what is registered lazily, to know."""
        self._join_entry_points()
        for name in list(self._lazy):
            self._load(name)
        return dict(sorted(self._broken.items()))

    def origin(self, name: str) -> str:
        """Where `name` was registered: a file, a module or an entry point."""
        return self._origin[name]

    def _move_broken(self, name: str) -> None:
        """List a broken item under its origin, so that its name is free."""
        origin = self._origin.pop(name)
        self._broken[f"{name} ({origin})"] = self._broken.pop(name)
        self._origin[f"{name} ({origin})"] = origin

    def _load(self, name: str) -> None:
        target = self._lazy.pop(name)
        try:
            # What a third party's module prints must not end up in a command's output, which may be JSON.
            with contextlib.redirect_stdout(sys.stderr):
                item = target.load() if isinstance(target, EntryPoint) else _import(target)
                problem = self._check(name, item)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # A third party's module may raise anything, and may call sys.exit().
            self._broken[name] = f"{self._origin[name]}: {reason(error)}"
            return
        if problem:
            self._broken[name] = f"{self._origin[name]}: {problem}"
        else:
            self._found[name] = item

    def _join_entry_points(self) -> None:
        if self._group is None:
            return
        group, self._group = self._group, None
        for point in _points(group):
            origin = f"entry point {point.value}" + (f" of {point.dist.name}" if point.dist else "")
            if point.name in self._origin:
                taken = f"its name is taken by {self._origin[point.name]}"
                self.register_broken(f"{point.name} ({point.value})", taken, origin=origin)
                continue
            self._origin[point.name] = origin
            self._lazy[point.name] = point


def _import(reference: str) -> Any:
    module, _, attribute = reference.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _points(group: str) -> list[EntryPoint]:
    """Return the entry points of a group; packages with damaged metadata have none."""
    try:
        return list(entry_points(group=group))
    except Exception:  # one package's entry_points.txt that cannot be parsed fails the look-up of all
        points: list[EntryPoint] = []
        for package in distributions():
            with contextlib.suppress(Exception):
                points += package.entry_points.select(group=group)
        return points


def reason(error: BaseException) -> str:
    """Return the first line of why something failed to load."""
    if isinstance(error, AgebenchError):
        return str(error)
    try:
        lines = str(error).strip().splitlines()
    except Exception:  # __str__ is the third party's too
        lines = []
    if isinstance(error, SystemExit):
        return f"it ends the program while it is loaded (SystemExit: {lines[0] if lines else ''})"
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"

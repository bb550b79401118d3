"""Registry of named items: cards, readers, heads. Items load lazily, and a broken one affects no other."""

import contextlib
import importlib
import reprlib
import sys
import threading
from collections.abc import Callable
from importlib.metadata import EntryPoint, distributions, entry_points
from typing import Any, Generic, TypeVar, overload

from agebench.errors import AgebenchError, UserError
from agebench.utils.text import did_you_mean

T = TypeVar("T")


class Registry(Generic[T]):
    """Named items of one kind: cards, readers, heads.

    An item is registered as an object, by decorator, or lazily as `"package.module:attribute"`, which is imported on first
    use. Entry points of `group` are added on first look-up. Items that fail to load are listed by `broken()` with a reason.
    Threads may look items up at the same time.

    Args:
        kind: the name of an item's kind in messages.
        group: the group of entry points.
        check: called with the name and the object that a plugin provides; returns the problem with it, "" if none.
    """

    # One for all registries: while an item loads, standard output is redirected for the whole process.
    _loading = threading.RLock()

    def __init__(
        self, kind: str, *, group: str | None = None, check: Callable[[str, Any], str] = lambda name, item: ""
    ) -> None:
        self.kind = kind
        self._check = check
        self._group = group
        self._items: dict[str, T] = {}
        self._lazy: dict[str, str | EntryPoint] = {}
        self._broken: dict[str, str] = {}
        self._origin: dict[str, str] = {}

    @overload
    def register(self, name: str) -> Callable[[T], T]: ...
    @overload
    def register(self, name: str, target: T | str, *, origin: str = ...) -> T | str: ...
    def register(self, name: str, target: T | str | None = None, *, origin: str = "") -> T | str | Callable[[T], T]:
        """Register an item; without a target, return a decorator that does.

        Args:
            name: the item's name.
            target: the item, or `"module:attribute"`.
            origin: where the item comes from, for messages; "": its module.

        Raises:
            UserError: the name is taken; the message names both origins.
        """
        if target is None:

            def decorate(item: T) -> T:
                self.register(name, item, origin=origin or getattr(item, "__module__", ""))
                return item

            return decorate
        origin = origin or (target if isinstance(target, str) else getattr(target, "__module__", "this program"))
        if name in self._broken and name not in self._items:  # a broken item does not reserve its name
            self._move_broken(name)
        if name in self._items or name in self._lazy:
            raise UserError(f"two {self.kind}s are called '{name}': {self._origin[name]} and {origin}; rename one")
        self._origin[name] = origin
        if isinstance(target, str):
            self._lazy[name] = target
        else:
            self._items[name] = target
        return target

    def register_broken(self, name: str, reason: str, *, origin: str) -> None:
        """Register an item that cannot be used.

        Args:
            name: the item's name.
            reason: why it cannot be used.
            origin: where the item comes from.
        """
        if name in self._origin:
            name = f"{name} ({origin})"
        self._origin[name] = origin
        self._broken[name] = reason

    def get(self, name: str) -> T:
        """Return an item; import it if necessary.

        Args:
            name: the item's name.

        Raises:
            UserError: the name is unknown (the message lists the closest ones), or the item is broken (with the reason).
        """
        if not isinstance(name, str):  # from a card or config whose values are not validated yet
            raise UserError(f"{self.kind} = {reprlib.repr(name)}: a name is required, as text")
        if name not in self._items:
            with self._loading:
                self._join_entry_points()
                if name in self._lazy:
                    self._load(name)
        if name in self._items:
            return self._items[name]
        if name in self._broken:
            raise UserError(f"{self.kind} '{name}' is broken: {self._broken[name]}")
        if name.endswith(".toml"):
            raise UserError(
                f"no {self.kind} called '{name}'. A card is asked for by the name in it, not by its file: put the file into "
                f"{self.kind}s/ of a folder, and name that folder with --registry DIR or in AGEBENCH_REGISTRY"
            )
        raise UserError(f"no {self.kind} called '{name}'{did_you_mean(name, self.names())}")

    def names(self) -> list[str]:
        """Return the sorted names of all items that are not known to be broken; imports nothing."""
        with self._loading:
            self._join_entry_points()
            return sorted({*self._items, *self._lazy})

    def broken(self) -> dict[str, str]:
        """Return name -> reason of all items that cannot be loaded. Imports the lazily registered ones."""
        with self._loading:
            self._join_entry_points()
            for name in list(self._lazy):
                self._load(name)
            return dict(sorted(self._broken.items()))

    def origin(self, name: str) -> str:
        """Return where an item was registered: a file, a module or an entry point.

        Args:
            name: the item's name.
        """
        return self._origin[name]

    def _move_broken(self, name: str) -> None:
        """List a broken item under its origin, so that its name becomes free."""
        origin = self._origin.pop(name)
        self._broken[f"{name} ({origin})"] = self._broken.pop(name)
        self._origin[f"{name} ({origin})"] = origin

    def _load(self, name: str) -> None:
        target = self._lazy.pop(name)  # first: the module may register the item itself
        try:
            # Output of a third-party module must not end up in a command's output, which may be JSON.
            with contextlib.redirect_stdout(sys.stderr):
                item = target.load() if isinstance(target, EntryPoint) else _import(target)
                problem = self._check(name, item)
        except KeyboardInterrupt:
            self._lazy[name] = target  # the next look-up loads it
            raise
        except BaseException as error:  # a third-party module may raise anything, and may call sys.exit()
            self._broken[name] = f"{self._origin[name]}: {reason(error)}"
            return
        if problem:
            self._broken[name] = f"{self._origin[name]}: {problem}"
        else:
            self._items[name] = item

    def _join_entry_points(self) -> None:
        if self._group is None:
            return
        points, self._group = _points(self._group), None
        for point in points:
            origin = f"entry point {point.value}" + (f" of {point.dist.name}" if point.dist else "")
            if point.name in self._origin:
                message = f"its name is taken by {self._origin[point.name]}"
                self.register_broken(f"{point.name} ({point.value})", message, origin=origin)
                continue
            self._origin[point.name] = origin
            self._lazy[point.name] = point


def _import(reference: str) -> Any:
    module, _, attribute = reference.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _points(group: str) -> list[EntryPoint]:
    """Return the entry points of a group; packages with damaged metadata are skipped."""
    try:
        return list(entry_points(group=group))
    except Exception:  # one package's entry_points.txt that cannot be parsed fails the look-up of all
        points: list[EntryPoint] = []
        for package in distributions():
            with contextlib.suppress(Exception):
                points += package.entry_points.select(group=group)
        return points


def reason(error: BaseException) -> str:
    """Return the first line of the reason why an item failed to load.

    Args:
        error: the exception that loading raised.
    """
    if isinstance(error, AgebenchError):
        return str(error)
    try:
        lines = str(error).strip().splitlines()
    except Exception:  # __str__ is third-party code, too
        lines = []
    if isinstance(error, SystemExit):
        return f"it ends the program while it is loaded (SystemExit: {lines[0] if lines else ''})"
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"

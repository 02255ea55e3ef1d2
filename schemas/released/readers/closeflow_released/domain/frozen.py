"""What frozen dataclasses need to be quick: making one, a copy with other values, and derived values that are kept with
them.

A frozen class sets each of its fields past its own `__setattr__`, which refuses: half of what a decision costs went
into that. Here a new object is of a twin of its class, with the same slots and not frozen, until all fields are set.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, Field, field, fields, make_dataclass
from functools import cache, wraps
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")
Class = TypeVar("Class", bound=type)

if TYPE_CHECKING:
    # To the type checker it is the standard library's own, whose keywords it knows.
    from dataclasses import replace as replace
else:

    def replace(of, /, **changes):
        """`dataclasses.replace` for classes with slots and without `__post_init__`, in a fifth of its time. Raises
        TypeError for a name that is no field."""
        return _replacer(type(of))(of, changes)


def quick(cls: Class) -> Class:
    """Give a frozen dataclass with slots an `__init__` that takes the same and costs less. Not for classes with a
    `__post_init__`."""
    twin, set_all, set_class = _twin(cls), _setter_of(cls, by_place=False), object.__setattr__

    def init(self: Any, *given: object, **named: object) -> None:
        set_class(self, "__class__", twin)
        set_all(self, *given, **named)
        self.__class__ = cls

    cls.__init__ = init  # type: ignore[misc]
    return cls


@cache
def _replacer(cls: type[Any]) -> Callable[[Any, dict[str, object]], Any]:
    twin, set_all = _twin(cls), _setter_of(cls, by_place=True)  # type: ignore[arg-type]  # a class is Hashable
    copied = [one.name for one in fields(cls) if one.init]
    place = {name: n for n, name in enumerate(copied)}
    values_of = attrgetter(*copied) if len(copied) > 1 else lambda of: (getattr(of, copied[0]),)

    def replaced(of: Any, changes: dict[str, object]) -> Any:
        values = list(values_of(of))
        for name, value in changes.items():
            if name not in place:
                raise TypeError(f"{cls.__name__} has no field {name!r}")
            values[place[name]] = value
        new = object.__new__(twin)
        set_all(new, *values)
        new.__class__ = cls
        return new

    return replaced


@cache
def _twin(cls: type[Any]) -> type[Any]:
    """The same layout, which Python asks for where an object changes its class, and nothing that refuses."""
    if hasattr(cls, "__post_init__"):
        raise TypeError(f"{cls.__name__} has a __post_init__, which would not be called")
    open_ = {"__setattr__": object.__setattr__, "__delattr__": object.__delattr__}
    return type(cls.__name__, cls.__bases__, {"__slots__": cls.__slots__, **open_})


def _setter_of(cls: type[Any], *, by_place: bool) -> Callable[..., None]:
    """The `__init__` of a dataclass with these fields that is not frozen: it is called as the class is, or with every
    value by its place."""
    shown = [(one.name, object, _like(one, by_place=by_place)) for one in fields(cls)]
    init: Callable[..., None] = vars(make_dataclass(cls.__name__, shown))["__init__"]
    return init


def _like(one: Field[Any], *, by_place: bool) -> Any:
    if not one.init:
        return field(init=False, default_factory=one.default_factory)
    if by_place:
        return field()
    if one.default_factory is not MISSING:
        return field(default_factory=one.default_factory, kw_only=bool(one.kw_only))
    return field(default=one.default, kw_only=bool(one.kw_only))


def kept(derive: Callable[[T], R]) -> Callable[[T], R]:
    """A function of one object that cannot change, called often: what it gives is kept in the object's `derived`, and
    goes with it."""

    @wraps(derive)
    def find(of: T) -> R:
        derived: dict[Callable[[T], R], R] = of.derived  # type: ignore[attr-defined]
        try:
            return derived[derive]
        except KeyError:
            found = derived[derive] = derive(of)
            return found

    return find

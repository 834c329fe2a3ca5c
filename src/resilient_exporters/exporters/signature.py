"""Which keyword arguments a `send` or `export` takes."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

from resilient_exporters.delivery.target import Target

__all__ = ["Keywords", "check_keywords", "method_of"]


def method_of(kind: type, name: str) -> Callable[..., Any]:
    """A method of a class as a function of the object and the rest, also when it is a static or class method."""
    written = inspect.getattr_static(kind, name)
    if not isinstance(written, staticmethod | classmethod):
        found: Callable[..., Any] = getattr(kind, name)
        return found
    function, of_class = written.__func__, isinstance(written, classmethod)

    @functools.wraps(function)
    def method(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        return function(type(self), *args, **kwargs) if of_class else function(*args, **kwargs)

    if not of_class:
        own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
        parameters = inspect.signature(function).parameters.values()
        method.__signature__ = inspect.Signature([own, *parameters])  # type: ignore[attr-defined]  # for `Keywords`
    return method


class Keywords:
    """The keywords that a function takes beside its data, read once from its signature.

    A signature that cannot be read, or one with `**kwargs`, takes all but the names of its own first parameters.

    Args:
        function: An unbound method (`self`, data, keywords...) or a plain function (data, keywords...).
        bound: How many leading parameters are no keywords: 2 for an unbound method, 1 for a plain function.
    """

    __slots__ = ("data", "names", "order", "taken")

    def __init__(self, function: Callable[..., Any], bound: int) -> None:
        self.names: frozenset[str] | None = None
        self.taken: frozenset[str] = frozenset()
        self.data = "data"
        self.order: list[str] = []
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except (ValueError, TypeError):
            return
        leading = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        first, rest = leading[:bound], leading[bound:]
        self.taken = frozenset(p.name for p in first if p.kind is p.POSITIONAL_OR_KEYWORD)
        self.order = [p.name for p in rest]
        if len(first) == bound:
            self.data = first[-1].name
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            named = [p for p in (*rest, *parameters) if p.kind is p.KEYWORD_ONLY or p in rest]
            self.names = frozenset(p.name for p in named if p.kind is not p.POSITIONAL_ONLY)

    def accepts(self, name: str) -> bool:
        """Whether a keyword of that name may be given."""
        return name not in self.taken if self.names is None else name in self.names

    def accepted(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Those of the given keyword arguments that may be given."""
        return {name: value for name, value in kwargs.items() if self.accepts(name)}


def check_keywords(kwargs: dict[str, Any], targets: Collection[Target]) -> None:
    """Refuse a keyword that none of the targets takes; where there are none, any is welcome."""
    for name in kwargs:
        if name == "data":
            raise TypeError("send() got multiple values for argument 'data'")
        if targets and not any(target.accepted({name: None}) for target in targets):
            raise TypeError(f"send() got an unexpected keyword argument {name!r}, which no exporter here takes")

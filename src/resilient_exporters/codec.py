"""Turns data into bytes and back, with every value and every type as they were.

A payload is one MessagePack value, with extensions (see `extensions`) for what MessagePack does not have. Writing has a
fast way, one call of ormsgpack, and a slow way for what ormsgpack refuses or would simplify: a walk in Python that
knows where it is. Both write the same bytes.
"""

from __future__ import annotations

import reprlib
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

from ormsgpack import (
    OPT_PASSTHROUGH_BIG_INT,
    OPT_PASSTHROUGH_DATACLASS,
    OPT_PASSTHROUGH_DATETIME,
    OPT_PASSTHROUGH_ENUM,
    OPT_PASSTHROUGH_SUBCLASS,
    OPT_PASSTHROUGH_TUPLE,
    OPT_PASSTHROUGH_UUID,
    Ext,
    Fragment,
    packb,
    unpackb,
)

from resilient_exporters.exceptions import DataTypeError, SpoolError
from resilient_exporters.extensions import LEAVES, MARK_START, MARKS, UNPACKERS, Builder, Unkeepable, kind_of, utf8

__all__ = ["DEEPEST", "decode", "decode_all", "decode_options", "encode", "encode_options"]

DEEPEST: Final = 255
"""Levels that containers may be nested: what ormsgpack can write."""

# Everything that ormsgpack would turn into something simpler goes to the hook instead.
_OPTIONS: Final = (
    OPT_PASSTHROUGH_BIG_INT
    | OPT_PASSTHROUGH_DATACLASS
    | OPT_PASSTHROUGH_DATETIME
    | OPT_PASSTHROUGH_ENUM
    | OPT_PASSTHROUGH_SUBCLASS
    | OPT_PASSTHROUGH_TUPLE
    | OPT_PASSTHROUGH_UUID
)
_BIN8, _BIN16, _BIN32 = 0xC4, 0xC5, 0xC6
_ARRAY32 = b"\xdd"


def encode(data: Any, root: str = "data") -> bytes:
    """The payload of some data.

    Args:
        data: What to keep.
        root: What the data is called in errors.

    Raises:
        DataTypeError: A part of it cannot be kept; the message has its path, its type and the way out.

    Example:
        >>> decode(encode({"place": (1, 2), 7: b"x"}))
        {'place': (1, 2), 7: b'x'}
    """
    try:
        payload = packb(data, _hook, _OPTIONS)
    except TypeError as error:
        _in_hook.interrupted(str(error))
        return _encode_slowly(data, root)
    # packb takes bytearray and memoryview for bytes. These three markers stand before all bytes (and, by chance,
    # elsewhere), so most payloads need no look at the data. Below 256 bytes there is no room for the longer two.
    if (_BIN8 in payload or (len(payload) > 255 and (_BIN16 in payload or _BIN32 in payload))) and _flattened(data):
        return _encode_slowly(data, root)
    return payload


def decode(payload: bytes) -> Any:
    """The data of a payload, built anew at each call.

    Raises:
        SpoolError: The bytes are not a payload, or name a time zone that this machine does not know.
    """
    try:
        tree = unpackb(payload, ext_hook=_unpack)
        # One byte is searched for in 20 ns, two in 250 ns: most payloads need no more than the first look.
        return _rebuild(tree) if MARK_START[0] in payload and MARK_START in payload else tree
    except (ValueError, TypeError) as error:
        reason = _in_hook.error or error
        _in_hook.interrupted(str(error))
        raise SpoolError(f"undecodable payload of {len(payload)} bytes: {reason!r}") from reason


def decode_all(payloads: Sequence[bytes]) -> list[Any]:
    """The data of many payloads, each as `decode` builds it, in one call of ormsgpack where that can be.

    Raises:
        SpoolError: One of them is not a payload, see `decode`.
    """
    marked = False

    def unpack(code: int, content: bytes) -> Any:
        nonlocal marked
        marked = marked or code == MARK_START[1]
        return _unpack(code, content)

    joined = b"".join((_ARRAY32, len(payloads).to_bytes(4, "big"), *payloads))
    try:
        trees: list[Any] = unpackb(joined, ext_hook=unpack)
        if marked:  # asking the hook is quicker than searching all bytes for marks, of which most data has none
            pairs = zip(trees, payloads, strict=True)
            return [_rebuild(tree) if MARK_START in payload else tree for tree, payload in pairs]
        return trees
    except (ValueError, TypeError) as error:
        _in_hook.interrupted(str(error))  # else one by one, which tells what is wrong with which
    return [decode(payload) for payload in payloads]


def encode_options(kwargs: dict[str, Any]) -> bytes:
    """The keyword arguments of a `send`, encoded; b"" for none.

    Raises:
        DataTypeError: As `encode` does; the path begins with the keyword: `table['x']`.
    """
    return encode(kwargs, "") if kwargs else b""


def decode_options(options: bytes) -> dict[str, Any]:
    """The keyword arguments that `encode_options` was given.

    Raises:
        SpoolError: The bytes are not encoded keyword arguments.
    """
    if not options:
        return {}
    kwargs = decode(options)
    if type(kwargs) is not dict:
        raise SpoolError(f"undecodable payload: keyword arguments expected, {type(kwargs).__name__} found")
    return kwargs


class _InHook(threading.local):
    """The exception that ended the last hook on this thread; ormsgpack puts one of its own in its place, bare."""

    error: BaseException | None = None

    def interrupted(self, message: str) -> None:
        """Raise what happened in a hook if it was not about the data, such as a Ctrl-C.

        Args:
            message: Of the error that says that a hook failed.
        """
        error, self.error = self.error, None
        if error is None and message.startswith(_HOOK_FAILED):
            raise KeyboardInterrupt  # it came before the first line of the hook, where only signal handlers raise
        if isinstance(error, MemoryError) or not isinstance(error, Exception | None):
            raise error


_HOOK_FAILED: Final = ("Type is not msgpack serializable", "ext_hook failed")
_in_hook = _InHook()


# ---- writing: the fast way, ormsgpack walks and asks the hook

_HOOKS: Final[dict[type, Callable[[Any], Any]]] = {
    **LEAVES,
    tuple: lambda value: [MARKS[tuple], *value],
    set: lambda value: [MARKS[set], *value],
    frozenset: lambda value: [MARKS[frozenset], *value],
}


def _hook(part: Any) -> Any:
    """What ormsgpack writes for a part that it does not know."""
    try:
        return _HOOKS[type(part)](part)
    except BaseException as error:
        _in_hook.error = error
        raise


_UNSEEN: Final = frozenset({bytearray, memoryview, Ext, Fragment})
_CONTAINERS: Final = frozenset({list, dict, tuple, set, frozenset})


def _flattened(data: Any) -> bool:
    """Whether packb wrote some part of the data as if it were something else."""
    todo: list[Any] = [data.values() if type(data) is dict else (data,)]
    while todo:
        parts = todo.pop()
        kinds = {*map(type, parts)}
        if not kinds.isdisjoint(_UNSEEN):
            return True
        if not kinds.isdisjoint(_CONTAINERS):
            todo.extend(part.values() if type(part) is dict else part for part in parts if type(part) in _CONTAINERS)
    return False


# ---- writing: the slow way, which knows its path


def _encode_slowly(data: Any, root: str) -> bytes:
    return packb(_plain(data, root), None, _OPTIONS)


_ITEM, _KEY, _ELEMENT = "[{}]", " (a key)", " (an element)"


# The way from the whole to a part, last step first: the step before, its form, its key. Plain tuples, one per part.
_Way = tuple[Any, str, Any] | None


def _plain(data: Any, root: str) -> Any:
    """A copy of the data in which all that needs an extension is one; a loop, for the stack may be nearly used up."""
    whole: list[Any] = [None]
    todo: list[tuple[Any, Any, Any, _Way, int]] = [(data, whole, 0, None, 1)]
    while todo:
        part, holder, slot, way, level = todo.pop()
        try:
            if type(part) not in _CONTAINERS:
                holder[slot] = _plain_leaf(part)
                continue
            if level > DEEPEST:
                raise Unkeepable(f"is nested more than {DEEPEST} levels deep, or contains itself")
            shell, places = _shell(part)
        except Unkeepable as reason:
            raise DataTypeError(f"{_path(root, way)} {reason}; convert it in `transform=`") from None
        holder[slot] = shell
        todo.extend((inner, shell, place, (way, form, key), level + 1) for place, form, key, inner in reversed(places))
    return whole[0]


def _plain_leaf(part: Any) -> Any:
    kind = type(part)
    if kind is str:
        if not part.isascii():
            utf8(part)
        return part
    if part is None or kind is float or kind is bool or kind is bytes:
        return part
    if kind is int and -(1 << 63) <= part < 1 << 64:
        return part
    if kind not in LEAVES:
        raise Unkeepable(f"is of type {kind_of(part)}, which cannot be kept")
    return LEAVES[kind](part)


def _shell(part: Any) -> tuple[Any, list[tuple[Any, str, Any, Any]]]:
    """An empty container for the parts of `part`, and for each of these its place there, its step and itself."""
    kind = type(part)
    if kind is dict and all(type(key) is str for key in part):
        for key in part:
            utf8(key, "has a key that holds")
        return dict.fromkeys(part), [(key, _ITEM, key, value) for key, value in part.items()]
    if kind is list:
        return [None] * len(part), [(index, _ITEM, index, item) for index, item in enumerate(part)]
    if kind is not dict:
        form = _ITEM if kind is tuple else _ELEMENT
        places = [(index + 1, form, index, item) for index, item in enumerate(part)]
        return [MARKS[kind], *[None] * len(part)], places
    pairs: list[tuple[int, str, Any, Any]] = []
    for index, (key, value) in enumerate(part.items()):
        pairs += [(2 * index + 1, _KEY, None, key), (2 * index + 2, _ITEM, key, value)]
    return [MARKS[dict], *[None] * len(pairs)], pairs


def _path(root: str, way: _Way) -> str:
    """How to reach a part, such as `data['a'][3]`; keyword arguments have no root and begin with the keyword."""
    steps: list[str] = []
    while way is not None:
        before, form, key = way
        bare = not root and before is None and form == _ITEM
        steps.append(str(key) if bare else form.format(_shown(key)))
        way = before
    return root + "".join(steps[: -_SHOWN - 1 : -1]) + ("..." if len(steps) > _SHOWN else "")


def _shown(key: Any) -> str:
    try:
        return reprlib.repr(key)
    except ValueError:  # an int with more digits than Python is willing to print
        return f"<{kind_of(key)}>"


_SHOWN: Final = 20
"""Steps of a path that a message shows."""


def _unpack(code: int, content: bytes) -> Any:
    try:
        return UNPACKERS[code](content)
    except BaseException as error:
        _in_hook.error = error
        raise


def _rebuild(tree: Any) -> Any:
    """The tree with every marked list turned into what its mark says; a loop, like `_plain`."""
    whole = [tree]
    todo: list[Any] = [whole]
    marked: list[tuple[Any, Any, list[Any]]] = []
    while todo:
        holder = todo.pop()
        for place, part in holder.items() if type(holder) is dict else enumerate(holder):
            kind = type(part)
            if kind is list or kind is dict:
                todo.append(part)
                if kind is list and part and type(part[0]) is Builder:
                    marked.append((holder, place, part))
            elif kind is Builder and (place != 0 or holder is whole):
                raise ValueError("a mark that is not the first of a list")
    for holder, place, part in reversed(marked):  # what is inside others was found after them
        holder[place] = part[0].build(part[1:])
    return whole[0]

"""The opcodes of pickle protocols 0 to 5, as a table of functions on a `Machine`."""

from __future__ import annotations

import struct
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence

from sparsejax.checkpoint.errors import (
    CheckpointError,
    CorruptFileError,
    TruncatedFileError,
    UnsupportedTensorError,
)
from sparsejax.checkpoint.torch_format.pickle_machine import REFUSED, Constructor, Machine
from sparsejax.checkpoint.torch_format.pickle_scalars import SCALARS

HIGHEST_PROTOCOL = 5

_DAMAGE = (IndexError, KeyError, ValueError, TypeError, OverflowError, struct.error, RecursionError)


def run(machine: Machine) -> object:
    """Decodes a pickle up to its STOP opcode.

    Returns:
      the object that it describes, made of Python values and of what the allow-list's constructors
      return.

    Raises:
      UnsafePickleError: it names a global outside the allow-list.
      CorruptFileError, TruncatedFileError: it is not a whole, well-formed pickle.
    """
    try:
        value = _loop(machine)
    except UnsupportedTensorError as error:
        machine.raise_if_refused()
        raise UnsupportedTensorError(f"{machine.where}: {error}") from None
    except CheckpointError:
        machine.raise_if_refused()
        raise
    except _DAMAGE as error:
        machine.raise_if_refused()
        raise _damage(machine, error) from None
    machine.raise_if_refused()
    return value


def _loop(machine: Machine) -> object:
    data, spent = machine.data, 0
    handlers, costs = _HANDLERS, _COSTS
    while True:
        position = machine.position
        code = data[position]
        machine.position = position + 1
        if code == _STOP:
            return machine.stack.pop()
        spent += costs[code]
        if spent > machine.budget:
            machine.charge(spent)
        handlers[code](machine)


def _damage(machine: Machine, error: Exception) -> CheckpointError:
    if isinstance(error, IndexError) and machine.position >= machine.size and machine.data[-1:] != b".":
        return TruncatedFileError(f"{machine.where}: its pickle has no end; fetch or save the file again")
    reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
    return CorruptFileError(
        f"{machine.where}: its pickle is damaged before byte {machine.position} ({reason})"
    )


def _push(value: object) -> Callable[[Machine], None]:
    return lambda machine: machine.stack.append(value)


def _push_new(kind: type) -> Callable[[Machine], None]:
    return lambda machine: machine.stack.append(kind())


def _unsupported(machine: Machine) -> None:
    code = machine.data[machine.position - 1]
    raise CorruptFileError(f"{machine.where}: byte 0x{code:02x} of its pickle is not an opcode torch writes")


def _proto(machine: Machine) -> None:
    if machine.integer(1) > HIGHEST_PROTOCOL:
        raise ValueError("a protocol above 5")


def _frame(machine: Machine) -> None:
    if machine.integer(8) > machine.size - machine.position:
        raise TruncatedFileError(f"{machine.where}: a frame of its pickle is longer than the file")


def _mark(machine: Machine) -> None:
    machine.below.append(machine.stack)
    machine.stack = []


def _pop(machine: Machine) -> None:
    if machine.stack:
        machine.stack.pop()
    else:
        machine.items()


def _pop_mark(machine: Machine) -> None:
    machine.items()


def _duplicate(machine: Machine) -> None:
    machine.stack.append(machine.stack[-1])


# containers


def _tuple(machine: Machine) -> None:
    items = machine.items()
    machine.stack.append(tuple(items))


def _tuple_of(count: int) -> Callable[[Machine], None]:
    def push(machine: Machine) -> None:
        stack = machine.stack
        if len(stack) < count:
            raise IndexError("too few values for a tuple")
        stack[-count:] = [tuple(stack[-count:])]

    return push


def _list(machine: Machine) -> None:
    items = machine.items()
    machine.stack.append(items)


def _dict(machine: Machine) -> None:
    items = machine.items()
    machine.stack.append({})
    _set_pairs(machine, items)


def _frozenset(machine: Machine) -> None:
    items = machine.items()
    machine.stack.append(frozenset([machine.key(value) for value in items]))


def _append(machine: Machine) -> None:
    value = machine.stack.pop()
    _extend(machine, (value,))


def _appends(machine: Machine) -> None:
    _extend(machine, machine.items())


def _extend(machine: Machine, values: Sequence[object]) -> None:
    target = machine.stack[-1]
    if target is REFUSED:
        return
    if type(target) is not list:
        raise TypeError(f"values appended to a {type(target).__name__}")
    target.extend(values)


def _set_item(machine: Machine) -> None:
    value = machine.stack.pop()
    key = machine.stack.pop()
    _set_pairs(machine, (key, value))


def _set_items(machine: Machine) -> None:
    _set_pairs(machine, machine.items())


def _set_pairs(machine: Machine, items: Sequence[object]) -> None:
    target = machine.stack[-1]
    if target is REFUSED:
        return
    if type(target) not in (dict, OrderedDict, Counter):
        raise TypeError(f"items set on a {type(target).__name__}")
    if len(items) % 2:
        raise ValueError("a key without a value")
    machine.charge(64 * len(items))
    for index in range(0, len(items), 2):
        target[machine.key(items[index])] = items[index + 1]


def _add_items(machine: Machine) -> None:
    values = machine.items()
    target = machine.stack[-1]
    if target is REFUSED:
        return
    if type(target) is not set:
        raise TypeError(f"members added to a {type(target).__name__}")
    machine.charge(64 * len(values))
    target.update([machine.key(value) for value in values])


# memo


def _put(machine: Machine) -> None:
    position = machine.position
    machine.memo[machine.data[position]] = machine.stack[-1]
    machine.position = position + 1


def _get(machine: Machine) -> None:
    position = machine.position
    machine.stack.append(machine.memo[machine.data[position]])
    machine.position = position + 1


def _put4(machine: Machine) -> None:
    machine.memo[machine.integer(4)] = machine.stack[-1]


def _get4(machine: Machine) -> None:
    machine.stack.append(machine.memo[machine.integer(4)])


def _put_line(machine: Machine) -> None:
    machine.memo[int(machine.line())] = machine.stack[-1]


def _get_line(machine: Machine) -> None:
    machine.stack.append(machine.memo[int(machine.line())])


def _memoize(machine: Machine) -> None:
    machine.memo[len(machine.memo)] = machine.stack[-1]


# globals and calls


def _global(machine: Machine) -> None:
    module = machine.line().decode("utf-8")
    machine.find(module, machine.line().decode("utf-8"))


def _stack_global(machine: Machine) -> None:
    name = machine.stack.pop()
    machine.find(machine.stack.pop(), name)


def _reduce(machine: Machine) -> None:
    args = machine.stack.pop()
    machine.stack[-1] = machine.construct(machine.stack[-1], args)


def _new_object(machine: Machine) -> None:
    target = machine.stack[-2]
    if isinstance(target, Constructor) and target.is_function:
        raise TypeError(f"an object made of the function {target.name}")
    _reduce(machine)


def _new_object_ex(machine: Machine) -> None:
    keywords = machine.stack.pop()
    if type(keywords) is not dict or keywords:
        raise TypeError("a call with keywords")
    _new_object(machine)


def _object(machine: Machine) -> None:
    items = machine.items()
    machine.stack.append(machine.construct(items[0], tuple(items[1:])))


def _instance(machine: Machine) -> None:
    args = machine.items()
    _global(machine)
    machine.stack[-1] = machine.construct(machine.stack[-1], tuple(args))


def _build(machine: Machine) -> None:
    state = machine.stack.pop()
    target = machine.stack[-1]
    if target is REFUSED or state is REFUSED:
        return
    if isinstance(state, tuple):
        machine.charge_contents(state)
    machine.build(target, state)


def _persistent(machine: Machine) -> None:
    identity = machine.stack.pop()
    if isinstance(identity, tuple) and machine.has_refused(identity):
        machine.stack.append(REFUSED)
        return
    machine.stack.append(machine.persistent_load(identity))


_STOP = ord(".")
_OPCODES: dict[bytes, tuple[Callable[[Machine], None], int]] = {  # handler, estimated bytes
    **SCALARS,
    b"\x80": (_proto, 0),
    b"\x95": (_frame, 0),
    b"(": (_mark, 120),
    b"0": (_pop, 0),
    b"1": (_pop_mark, 0),
    b"2": (_duplicate, 8),
    b"N": (_push(None), 8),
    b"\x88": (_push(True), 8),
    b"\x89": (_push(False), 8),
    b")": (_push(()), 8),
    b"t": (_tuple, 120),
    b"\x85": (_tuple_of(1), 120),
    b"\x86": (_tuple_of(2), 120),
    b"\x87": (_tuple_of(3), 120),
    b"]": (_push_new(list), 320),
    b"l": (_list, 320),
    b"a": (_append, 32),
    b"e": (_appends, 16),
    b"}": (_push_new(dict), 320),
    b"d": (_dict, 480),
    b"s": (_set_item, 168),
    b"u": (_set_items, 232),
    b"\x8f": (_push_new(set), 288),
    b"\x90": (_add_items, 64),
    b"\x91": (_frozenset, 288),
    b"q": (_put, 24),
    b"r": (_put4, 120),
    b"p": (_put_line, 120),
    b"\x94": (_memoize, 120),
    b"h": (_get, 8),
    b"j": (_get4, 8),
    b"g": (_get_line, 8),
    b"c": (_global, 256),
    b"\x93": (_stack_global, 256),
    b"R": (_reduce, 320),
    b"\x81": (_new_object, 320),
    b"\x92": (_new_object_ex, 320),
    b"o": (_object, 320),
    b"i": (_instance, 320),
    b"b": (_build, 64),
    b"Q": (_persistent, 480),
}
_HANDLERS = [_OPCODES.get(bytes([code]), (_unsupported, 0))[0] for code in range(256)]
_COSTS = [_OPCODES.get(bytes([code]), (_unsupported, 0))[1] for code in range(256)]

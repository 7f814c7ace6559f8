"""The pickle opcodes that push a number, text or bytes."""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable

from sparsejax.checkpoint.torch_format.pickle_machine import Machine

# numbers


def _unsigned(count: int) -> Callable[[Machine], None]:
    return lambda machine: machine.stack.append(machine.integer(count))


def _int1(machine: Machine) -> None:
    position = machine.position
    machine.stack.append(machine.data[position])
    machine.position = position + 1


def _int4(machine: Machine) -> None:
    machine.stack.append(int.from_bytes(machine.take(4), "little", signed=True))


def _long(count: int) -> Callable[[Machine], None]:
    def push(machine: Machine) -> None:
        raw = machine.take(machine.integer(count))
        machine.stack.append(int.from_bytes(raw, "little", signed=True))

    return push


def _float8(machine: Machine) -> None:
    machine.stack.append(struct.unpack(">d", machine.take(8))[0])


def _int_line(machine: Machine) -> None:
    text = machine.line()
    machine.stack.append({b"00": False, b"01": True}[text] if text in (b"00", b"01") else int(text))


def _long_line(machine: Machine) -> None:
    machine.stack.append(int(machine.line().rstrip(b"L")))


def _float_line(machine: Machine) -> None:
    machine.stack.append(float(machine.line()))


# text and bytes


def _unicode4(machine: Machine) -> None:
    data, position = machine.data, machine.position + 4
    end = position + int.from_bytes(data[position - 4 : position], "little")
    if end > machine.size:
        machine.take(end - position)
    machine.stack.append(data[position:end].decode("utf-8", "surrogatepass"))
    machine.position = end
    machine.budget -= end - position


def _unicode(count: int) -> Callable[[Machine], None]:
    def push(machine: Machine) -> None:
        raw = machine.take(machine.integer(count))
        machine.charge(len(raw))
        machine.stack.append(raw.decode("utf-8", "surrogatepass"))

    return push


def _unicode_line(machine: Machine) -> None:
    machine.stack.append(codecs.raw_unicode_escape_decode(machine.line())[0])


def _bytes(count: int) -> Callable[[Machine], None]:
    def push(machine: Machine) -> None:
        raw = machine.take(machine.integer(count))
        machine.charge(len(raw))
        machine.stack.append(raw)

    return push


def _bytearray8(machine: Machine) -> None:
    raw = machine.take(machine.integer(8))
    machine.charge(2 * len(raw))
    machine.stack.append(bytearray(raw))


def _old_text(raw: bytes) -> str | bytes:
    """A string of Python 2: text where it decodes, else the bytes."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw


def _old_string(count: int) -> Callable[[Machine], None]:
    def push(machine: Machine) -> None:
        raw = machine.take(machine.integer(count))
        machine.charge(len(raw))
        machine.stack.append(_old_text(raw))

    return push


def _old_string_line(machine: Machine) -> None:
    text = machine.line().strip()
    if len(text) < 2 or text[:1] != text[-1:] or text[:1] not in (b"'", b'"'):
        raise ValueError("a string without quotes")
    machine.stack.append(_old_text(codecs.escape_decode(text[1:-1])[0]))


SCALARS: dict[bytes, tuple[Callable[[Machine], None], int]] = {  # handler, estimated bytes
    b"K": (_int1, 8),
    b"M": (_unsigned(2), 40),
    b"J": (_int4, 40),
    b"\x8a": (_long(1), 48),
    b"\x8b": (_long(4), 48),
    b"I": (_int_line, 48),
    b"L": (_long_line, 48),
    b"G": (_float8, 32),
    b"F": (_float_line, 32),
    b"X": (_unicode4, 64),
    b"\x8c": (_unicode(1), 64),
    b"\x8d": (_unicode(8), 64),
    b"V": (_unicode_line, 64),
    b"C": (_bytes(1), 64),
    b"B": (_bytes(4), 64),
    b"\x8e": (_bytes(8), 64),
    b"\x96": (_bytearray8, 80),
    b"U": (_old_string(1), 64),
    b"T": (_old_string(4), 64),
    b"S": (_old_string_line, 64),
}

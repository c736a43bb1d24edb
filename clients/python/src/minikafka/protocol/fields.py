"""Fields of messages: how each is put and taken (``docs/PROTOCOL.md`` section 2).

A message is a dataclass below :class:`Message` whose annotations name both the Python type and the wire form, so that
both directions follow from one declaration, and type checkers see plain ``int``, ``str`` and ``list``::

    @dataclass
    class ProduceReply(Message):
        base_offset: U64
        append_timestamp: I64

Every length is checked against what is there before anything is made of it.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from typing import Annotated, Any, Optional, TypeVar, Union, get_args, get_origin, get_type_hints

from . import limits
from .error_code import ErrorCode
from .names import is_name


class DecodeError(ValueError):
    """Bytes are not the message they should be. ``name`` is that of the golden vectors."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(reason)
        self.name = name

    @classmethod
    def field(cls, what: str) -> DecodeError:
        """A field is outside its range."""
        return cls("field", f"field {what} is outside its range")


class Reader:
    """Takes fields from a message, front to back."""

    __slots__ = ("_at", "_data", "_end")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._end = len(data)

    def bytes(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        start, end = self._at, self._at + count
        if end > self._end:
            raise DecodeError("truncated", f"the message ends {end - self._end} bytes too early")
        self._at = end
        return self._data[start:end]

    def number(self, form: struct.Struct) -> int:
        """The next number."""
        at = self._at
        if at + form.size > self._end:
            raise DecodeError("truncated", f"the message ends {at + form.size - self._end} bytes too early")
        self._at = at + form.size
        value: int = form.unpack_from(self._data, at)[0]
        return value

    @property
    def remaining(self) -> int:
        """How many bytes are left."""
        return self._end - self._at

    def finish(self) -> None:
        """Refuses bytes that are left over."""
        if self._at != self._end:
            raise DecodeError("trailing", f"{self.remaining} bytes are left over behind the message")


class Field(ABC):
    """One form on the wire."""

    @abstractmethod
    def put(self, out: bytearray, value: Any) -> None:
        """Appends the wire form."""

    @abstractmethod
    def take(self, reader: Reader) -> Any:
        """Takes the wire form."""


class Number(Field):
    """A little-endian integer."""

    def __init__(self, code: str) -> None:
        self._form = struct.Struct("<" + code)

    def put(self, out: bytearray, value: Any) -> None:
        out += self._form.pack(value)

    def take(self, reader: Reader) -> int:
        return reader.number(self._form)


_U8 = struct.Struct("<B")
_U16 = struct.Struct("<H")
_U32 = struct.Struct("<I")


class Flag(Field):
    """A bool: 0 or 1, nothing else."""

    def put(self, out: bytearray, value: Any) -> None:
        out.append(1 if value else 0)

    def take(self, reader: Reader) -> bool:
        value = reader.number(_U8)
        if value > 1:
            raise DecodeError.field("bool")
        return value == 1


class TextField(Field):
    """Length and UTF-8. What is too long is cut at a character when it is put."""

    def put(self, out: bytearray, value: Any) -> None:
        data = value.encode()
        if len(data) > limits.TEXT_BYTES_MAX:
            data = data[: limits.TEXT_BYTES_MAX].decode(errors="ignore").encode()
        out += _U16.pack(len(data)) + data

    def take(self, reader: Reader) -> str:
        length = reader.number(_U16)
        if length > limits.TEXT_BYTES_MAX:
            raise DecodeError.field("text length")
        try:
            return reader.bytes(length).decode()
        except UnicodeDecodeError:
            raise DecodeError.field("text") from None


class NameField(TextField):
    """Letters, digits, ``.``, ``_`` and ``-``, neither ``.`` nor ``..``; nothing at all where that is allowed."""

    def __init__(self, what: str, *, may_be_empty: bool = False) -> None:
        self._what = what
        self._may_be_empty = may_be_empty

    def take(self, reader: Reader) -> str:
        name = super().take(reader)
        if not is_name(name) and (name or not self._may_be_empty):
            raise DecodeError.field(self._what)
        return name


class ShortText(TextField):
    """A text of fewer bytes than others."""

    def __init__(self, what: str, bytes_max: int) -> None:
        self._what = what
        self._bytes_max = bytes_max

    def take(self, reader: Reader) -> str:
        text = super().take(reader)
        if len(text.encode()) > self._bytes_max:
            raise DecodeError.field(self._what)
        return text


class Blob(Field):
    """So many bytes."""

    def __init__(self, count: int) -> None:
        self._count = count

    def put(self, out: bytearray, value: Any) -> None:
        assert len(value) == self._count, f"expected {self._count} bytes, got {len(value)}"
        out += value

    def take(self, reader: Reader) -> bytes:
        return reader.bytes(self._count)


class Choice(Field):
    """A u8 that must be one of a few."""

    def __init__(self, what: str, *allowed: int) -> None:
        self._what = what
        self._allowed = allowed

    def put(self, out: bytearray, value: Any) -> None:
        out.append(value)

    def take(self, reader: Reader) -> int:
        value = reader.number(_U8)
        if value not in self._allowed:
            raise DecodeError.field(self._what)
        return value


class ErrorField(Field):
    """A code of the table, or none."""

    def put(self, out: bytearray, value: Any) -> None:
        out += _U16.pack(value or 0)

    def take(self, reader: Reader) -> ErrorCode | None:
        return ErrorCode.from_number(reader.number(_U16))


class ListOf(Field):
    """A count, then the items."""

    def __init__(self, item: Field) -> None:
        self._item = item

    def put(self, out: bytearray, value: Any) -> None:
        out += _U32.pack(len(value))
        for item in value:
            self._item.put(out, item)

    def take(self, reader: Reader) -> list[Any]:
        count = reader.number(_U32)
        self.check(count)
        # Each item takes at least one byte, so a lying count cannot make us allocate more than was sent.
        if count > reader.remaining:
            raise DecodeError("truncated", f"a list announces {count} items, {reader.remaining} bytes are left")
        take = self._item.take
        return [take(reader) for _ in range(count)]

    def check(self, count: int) -> None:
        """Refuses a list of so many items; here, none."""


class OptionalOf(Field):
    """A bool, then the value if it is 1."""

    def __init__(self, item: Field) -> None:
        self._item = item

    def put(self, out: bytearray, value: Any) -> None:
        out.append(0 if value is None else 1)
        if value is not None:
            self._item.put(out, value)

    def take(self, reader: Reader) -> Any:
        return self._item.take(reader) if _FLAG.take(reader) else None


class Record(Field):
    """A message inside of another."""

    def __init__(self, kind: type[Message]) -> None:
        self._kind = kind

    def put(self, out: bytearray, value: Any) -> None:
        value.put(out)

    def take(self, reader: Reader) -> Any:
        return self._kind.take(reader)


_FLAG = Flag()

U8 = Annotated[int, Number("B")]
U16 = Annotated[int, Number("H")]
U32 = Annotated[int, Number("I")]
U64 = Annotated[int, Number("Q")]
I64 = Annotated[int, Number("q")]
Bool = Annotated[bool, _FLAG]
Text = Annotated[str, TextField()]
GroupName = Annotated[str, NameField("group name")]
#: Empty: none.
InstanceName = Annotated[str, NameField("instance name", may_be_empty=True)]
Nonce = Annotated[bytes, Blob(16)]
MaybeError = Annotated[Optional[ErrorCode], ErrorField()]


M = TypeVar("M", bound="Message")


class Message:
    """A message: subclasses are dataclasses whose annotations say the wire form."""

    @classmethod
    def form(cls) -> list[tuple[str, Field]]:
        """The fields in their order, by name."""
        cached: list[tuple[str, Field]] | None = cls.__dict__.get("_form")
        if cached is None:
            hints = get_type_hints(cls, include_extras=True)
            cached = [(name, _field_of(hint)) for name, hint in hints.items()]
            cls._form = cached  # type: ignore[attr-defined]
        return cached

    def put(self, out: bytearray) -> None:
        """Appends the wire form."""
        for name, field in self.form():
            field.put(out, getattr(self, name))

    @classmethod
    def take(cls: type[M], reader: Reader) -> M:
        """Takes the wire form."""
        return cls(*[field.take(reader) for _, field in cls.form()])

    def encode(self) -> bytes:
        """The whole message as bytes."""
        out = bytearray()
        self.put(out)
        return bytes(out)

    @classmethod
    def decode(cls: type[M], data: bytes) -> M:
        """The message that ``data`` are, with nothing behind it.

        :raises DecodeError: ``truncated``, ``trailing`` or ``field``.
        """
        reader = Reader(data)
        message = cls.take(reader)
        reader.finish()
        return message


def _field_of(hint: Any) -> Field:
    """The wire form that an annotation says."""
    for extra in getattr(hint, "__metadata__", ()):
        if isinstance(extra, Field):
            return extra
    if isinstance(hint, type) and issubclass(hint, Message):
        return Record(hint)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is list:
        return ListOf(_field_of(arguments[0]))
    if origin is Union:
        (item,) = [argument for argument in arguments if argument is not type(None)]
        return OptionalOf(_field_of(item))
    raise TypeError(f"{hint} has no form on the wire")

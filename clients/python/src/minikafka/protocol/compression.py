"""Compression of batch bodies: LZ4 blocks and Zstandard frames, each with an extra of its own to install.

Both wheels are asked for only when a batch needs them, so that a client without extras still starts. Sizes are known
beforehand: a lying header can not make us take more memory than a body may have.
"""

from __future__ import annotations

from typing import Any, Callable, Final

from .batch_builder import FinishedBatch
from .checksum import Buffer
from .entry import CODEC_LZ4, CODEC_NONE, CODEC_ZSTD, EntryHeader
from .errors import InvalidOptionError
from .options import Compression

_NAMES: Final = {CODEC_LZ4: "lz4", CODEC_ZSTD: "zstd"}


class DecompressionError(ValueError):
    """A body that is not what its header says."""


def require(compression: Compression) -> None:
    """Refuses a compression whose extra is not installed.

    :raises InvalidOptionError: it says what to install.
    """
    if compression == "lz4":
        _lz4()
    elif compression == "zstd":
        _zstd()


def compress(batch: FinishedBatch, compression: Compression, zstd_level: int) -> FinishedBatch:
    """The batch with its body compressed; as it is when that would not make it smaller."""
    if compression == "none":
        return batch
    if compression == "lz4":
        codec, body = CODEC_LZ4, _lz4().compress(batch.body, store_size=False)
    else:
        codec, body = CODEC_ZSTD, _zstd().ZstdCompressor(level=zstd_level).compress(batch.body)
    return batch._replace(codec=codec, body=body) if len(body) < len(batch.body) else batch


def decompress(header: EntryHeader, body: Buffer) -> Buffer:
    """The body as its producer wrote it.

    :raises DecompressionError: it is not what its header says.
    :raises InvalidOptionError: the extra that reads it is not installed.
    """
    if header.codec == CODEC_NONE:
        return body
    expected = header.uncompressed_bytes
    open_body: Callable[[Buffer, int], bytes] = _open_lz4 if header.codec == CODEC_LZ4 else _open_zstd
    try:
        plain = open_body(body, expected)
    except InvalidOptionError:
        raise
    except Exception as error:
        # Each wheel has an exception of its own, and both raise others, too.
        raise DecompressionError(f"a body is not {_NAMES[header.codec]}: {error}") from error
    if len(plain) != expected:
        raise DecompressionError(f"a body has {len(plain)} bytes once decompressed, its header announces {expected}")
    return plain


def _open_lz4(body: Buffer, expected: int) -> bytes:
    plain: bytes = _lz4().decompress(body, uncompressed_size=expected)
    return plain


def _open_zstd(body: Buffer, expected: int) -> bytes:
    zstd = _zstd()
    announced = zstd.frame_content_size(body)
    if announced not in (-1, expected):
        raise DecompressionError(f"its frame announces {announced} bytes, its header {expected}")
    plain: bytes = zstd.ZstdDecompressor().decompress(body, max_output_size=expected)
    return plain


def _lz4() -> Any:
    try:
        import lz4.block
    except ImportError:
        raise _missing("lz4") from None
    return lz4.block


def _zstd() -> Any:
    try:
        import zstandard
    except ImportError:
        raise _missing("zstd") from None
    return zstandard


def _missing(extra: str) -> InvalidOptionError:
    return InvalidOptionError("compression", f"{extra} is not installed: pip install 'minikafka[{extra}]'")

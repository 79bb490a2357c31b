"""Unpacking of compressed voxels to their last byte, with nothing behind it."""

from __future__ import annotations

import bz2
import io
from typing import Any

__all__ = ["unpack"]


def unpack(body: memoryview, encoding: str, most: int) -> bytes:
    """Decompress a body, to its last byte.

    Parameters
    ----------
    body : memoryview
        The compressed bytes.
    encoding : {"zlib", "gzip", "bzip2"}
        Kind of compression.
    most : int
        Maximum number of bytes; decompression stops there.

    Raises
    ------
    EOFError, ValueError, OSError
        If the body is damaged, too short, or followed by other bytes.
    """
    from isal import igzip, igzip_lib

    try:
        if encoding == "gzip":
            single = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
            out = single.decompress(body, max_length=most)
            if len(out) >= most or (single.eof and not single.unused_data):
                return out
            # It joins the members of a file, and checks each.
            with igzip.IGzipFile(fileobj=io.BytesIO(body)) as stream:
                return stream.read(most)
        if encoding == "zlib":
            single = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_ZLIB)
            out = single.decompress(body, max_length=most)
            if len(out) < most and (not single.eof or single.unused_data):
                raise EOFError
            return out
    except igzip_lib.IsalError as error:  # type: ignore[misc]  # its stub is no class
        raise ValueError(str(error)) from error
    joined = b""
    rest: Any = body
    while rest and len(joined) < most:
        one = bz2.BZ2Decompressor()
        joined += one.decompress(rest, max_length=most - len(joined))
        if not one.eof and len(joined) < most:
            raise EOFError
        rest = one.unused_data
    return joined

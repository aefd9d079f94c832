"""zstd out of the store, of bounded memory."""

from collections.abc import Iterator
from typing import IO, cast

import zstandard

from node_agent.archive.errors import ArchiveCorrupt
from node_agent.archive.member_tar import ChunkFile
from node_agent.store import CHUNK_BYTES

# Enough for zstd's --long=27; a frame that asks for more is refused instead of given the memory.
WINDOW_BYTES_MAX = 1 << 27


def unzipped(chunks: Iterator[bytes], what: str) -> Iterator[bytes]:
    """What one frame unpacks to. Raises ArchiveCorrupt."""
    decompressor = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES_MAX)
    source = cast("IO[bytes]", ChunkFile(chunks))
    try:
        reader = decompressor.stream_reader(source, read_size=CHUNK_BYTES)
        while data := reader.read(CHUNK_BYTES):
            yield data
    except zstandard.ZstdError as error:
        raise ArchiveCorrupt(f"{what} cannot be decompressed: {error}") from error

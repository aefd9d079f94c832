"""Whether an inode is held fast by a flag (`chattr +i`, `+a`): asked of the kernel, without opening the file.

Python's `os.stat` does not show these flags, and their ioctl would open each file, which FIFOs and devices do
not take well. statx(2): Linux 4.11, glibc 2.28.
"""

import ctypes
import os
import struct

# linux/stat.h
_ATTRIBUTES_OFFSET_BYTES = 8
_ATTRIBUTES = struct.Struct("=Q")
_STRUCT_BYTES = 256
_IMMUTABLE, _APPEND_ONLY = 0x10, 0x20
# linux/fcntl.h
_NOFOLLOW = 0x100

_LIBC = ctypes.CDLL(None, use_errno=True)
_STATX = _LIBC.statx
_STATX.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_char_p)
_STATX.restype = ctypes.c_int


class FlagReader:
    """Asks about one inode at a time; for one thread."""

    def __init__(self) -> None:
        self._found = ctypes.create_string_buffer(_STRUCT_BYTES)

    def is_held_fast(self, folder_fd: int, name: bytes) -> bool:
        """Immutable, or append-only. Follows no link. Raises OSError."""
        if _STATX(folder_fd, name, _NOFOLLOW, 0, self._found) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), name)
        (attributes,) = _ATTRIBUTES.unpack_from(self._found, _ATTRIBUTES_OFFSET_BYTES)
        return bool(attributes & (_IMMUTABLE | _APPEND_ONLY))

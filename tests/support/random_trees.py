"""Hypothesis strategies for strange trees, as data, and the hand that builds them on disk."""

# Names here are bytes, as the kernel has them; a Path would tidy some of them.
# ruff: noqa: PTH101, PTH102, PTH123, PTH211

import os
import socket
import stat
import struct
from dataclasses import dataclass
from pathlib import Path

from hypothesis import strategies as st

KINDS = (
    "file",
    "file",
    "file",
    "sparse",
    "folder",
    "folder",
    "symlink",
    "fifo",
    "device",
    "whiteout",
    "socket",
)
STRANGE_NAMES = (
    b"a",
    b"b",
    b"a b ",
    b"two\nlines",
    b"tab\there",
    b"\xff\xfe not utf-8",
    "naïve ☃".encode(),
    b".wh.a",
    b".wh..wh..opq",
    b"-rf",
    b"--checkpoint-action=exec=false",
    b"*?[a]",
    b"back\\slash\\n",
    b"'quoted\"",
    b"x: socket ignored",
    b"n" * 255,
    b"\x01\x7f",
)
OWNERS = (0, 1, 1000, 65534, 2_000_000)
# Hours before 1970, ages after 2038: what ext4 keeps.
SECONDS_MIN, SECONDS_MAX = -(2**31), 15_000_000_000
BLOCK = 4096


@dataclass(frozen=True)
class Node:
    """One entry to build. `content` is of files; of sparse ones, data between holes; of links, the target."""

    kind: str
    name: bytes
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    xattrs: tuple[tuple[str, bytes], ...]
    content: bytes = b""
    holes: int = 0
    children: tuple["Node", ...] = ()


def names() -> st.SearchStrategy[bytes]:
    """Any name a Linux folder can hold, most of them strange."""
    free = st.binary(min_size=1, max_size=40).filter(_is_name)
    return st.sampled_from(STRANGE_NAMES) | free


def nodes(kinds: tuple[str, ...] = KINDS) -> st.SearchStrategy[Node]:
    """One entry; a folder is empty."""
    return st.builds(
        Node,
        kind=st.sampled_from(kinds),
        name=names(),
        mode=st.integers(0, 0o7777),
        uid=st.sampled_from(OWNERS),
        gid=st.sampled_from(OWNERS),
        mtime_ns=st.integers(SECONDS_MIN * 10**9, SECONDS_MAX * 10**9),
        xattrs=_xattrs(),
        content=st.binary(min_size=1, max_size=300),
        holes=st.integers(1, 3),
    )


def folders(depth: int = 2) -> st.SearchStrategy[Node]:
    """A folder with up to six entries, folders in it with some of their own."""
    inner = nodes() if depth == 0 else nodes() | folders(depth - 1)
    children = st.lists(inner, max_size=6, unique_by=lambda node: node.name)
    return st.builds(_with_children, nodes(("folder",)), children)


@dataclass(frozen=True)
class Tree:
    """A root folder, and pairs of numbers that say which entries get a second name in which folders."""

    root: Node
    hard_links: tuple[tuple[int, int], ...]


def trees() -> st.SearchStrategy[Tree]:
    """Whole trees."""
    pairs = st.tuples(st.integers(0, 50), st.integers(0, 50))
    return st.builds(Tree, folders(), st.lists(pairs, max_size=3).map(tuple))


def build(tree: Tree, root: Path) -> None:
    """Make the tree in an existing empty folder. Needs root, and a file system with xattrs and ACLs."""
    base = os.fsencode(root)
    made: list[tuple[bytes, Node]] = []
    _make_children(tree.root, base, made)
    _make_hard_links(tree.hard_links, base, made)
    # Deepest first: the making of a child changes its folder's time.
    for path, node in [*reversed(made), (base, tree.root)]:
        _dress(path, node)


def _with_children(folder: Node, children: list[Node]) -> Node:
    return Node(**{**vars(folder), "children": tuple(children)})


def _is_name(name: bytes) -> bool:
    return name not in {b".", b".."} and b"/" not in name and b"\0" not in name


def _xattrs() -> st.SearchStrategy[tuple[tuple[str, bytes], ...]]:
    value = st.binary(max_size=60)
    pairs = (
        st.tuples(st.sampled_from(["user.a", "user.ä=b%c", "user.with space", "trusted.x"]), value)
        | st.just(("trusted.overlay.opaque", b"y"))
        | st.just(("trusted.overlay.origin", b"node-local"))
        | st.just(("system.posix_acl_access", _acl(user=2_000_000)))
        | st.just(("system.posix_acl_default", _acl(user=1)))
        | st.just(("security.capability", struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)))
    )
    return st.lists(pairs, max_size=4, unique_by=lambda pair: pair[0]).map(tuple)


def _acl(user: int) -> bytes:
    """What the kernel keeps of `u::rwx,u:USER:r-x,g::r--,m::r-x,o::r--` (linux/posix_acl_xattr.h)."""
    nobody = 0xFFFFFFFF
    rules = [(1, 7, nobody), (2, 5, user), (4, 4, nobody), (0x10, 5, nobody), (0x20, 4, nobody)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *rule) for rule in rules)


def _make_children(folder: Node, path: bytes, made: list[tuple[bytes, Node]]) -> None:
    for child in folder.children:
        child_path = path + b"/" + child.name
        made.append((child_path, child))
        _make(child, child_path)
        _make_children(child, child_path, made)


def _make(node: Node, path: bytes) -> None:
    match node.kind:
        case "file":
            _write(path, node.content)
        case "sparse":
            _write_sparse(path, node)
        case "folder":
            os.mkdir(path)
        case "symlink":
            os.symlink(node.content.replace(b"\0", b"."), path)
        case "fifo":
            os.mkfifo(path)
        case "device":
            os.mknod(path, stat.S_IFCHR, os.makedev(1, node.holes))
        case "whiteout":
            os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))
        case "socket":
            _make_socket(path)


def _write(path: bytes, content: bytes) -> None:
    with open(path, "xb") as file:
        file.write(content)


def _write_sparse(path: bytes, node: Node) -> None:
    with open(path, "xb") as file:
        for _ in range(node.holes):
            file.seek(BLOCK * 5, os.SEEK_CUR)
            file.write(node.content)
        file.truncate(file.tell() + BLOCK * 3)


def _make_socket(path: bytes) -> None:
    folder, name = os.path.split(path)
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            # Socket addresses are short; long names are bound under a short one and renamed.
            listener.bind(f"/proc/self/fd/{fd}/.binding")
            os.rename(b".binding", name, src_dir_fd=fd, dst_dir_fd=fd)
    finally:
        os.close(fd)


def _make_hard_links(links: tuple[tuple[int, int], ...], base: bytes, made: list[tuple[bytes, Node]]) -> None:
    files = [path for path, node in made if node.kind not in {"folder", "socket"}]
    places = [base, *(path for path, node in made if node.kind == "folder")]
    for number, (which, where) in enumerate(links):
        if files:
            os.link(
                files[which % len(files)],
                places[where % len(places)] + b"/second-name-%d" % number,
                follow_symlinks=False,
            )


def _dress(path: bytes, node: Node) -> None:
    is_link = node.kind == "symlink"
    os.chown(path, node.uid, node.gid, follow_symlinks=False)
    for name, value in node.xattrs:
        if _can_carry(node.kind, name):
            os.setxattr(path, name, value, follow_symlinks=False)
    if not is_link:
        os.chmod(path, node.mode)
    os.utime(path, ns=(node.mtime_ns, node.mtime_ns), follow_symlinks=False)


def _can_carry(kind: str, name: str) -> bool:
    """What Linux allows: user.* on files and folders, no ACL on links, default ACLs on folders only."""
    is_plain = kind in {"file", "sparse", "folder"}
    if name.startswith("user."):
        return is_plain
    if name == "system.posix_acl_default":
        return kind == "folder"
    if name == "system.posix_acl_access":
        return kind != "symlink"
    return name != "security.capability" or kind in {"file", "sparse"}

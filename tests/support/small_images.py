"""Images small enough to be copied about, on the machine's own engine, and what is done to pods of them."""

import io
import json
import secrets
import subprocess
import tarfile
from collections.abc import Callable, Iterator

import pytest

from tests.support.vfs_engine import small_root

# What serves a page where an IDE would: enough for a pod to count as started.
PERL = "/usr/bin/perl"
ANSWERING = [
    PERL,
    "-MIO::Socket::INET",
    "-e",
    (
        "$SIG{TERM} = sub { exit };"
        "$door = IO::Socket::INET->new(LocalPort => 8080, Listen => 9, ReuseAddr => 1) or die;"
        "while ($one = $door->accept) { while (<$one>) { last if /^\\s*$/ }"
        " print $one qq(HTTP/1.0 200 OK\\r\\n\\r\\npage); close $one }"
    ),
]
_PARTS = [PERL, "-MIO::Socket::INET", "-e", r'print "$_\n" for values %INC, @DynaLoader::dl_shared_objects']
# All that a layer has a word for.
CHANGES = """set -e
cd /etc/gone; rm inside
rm /etc/deleted /etc/replaced; mkdir /etc/replaced; echo in >/etc/replaced/file
rm -r /etc/kept; mkdir /etc/kept; echo new >/etc/kept/new
mkdir -p /opt/new; echo one >/opt/new/x; ln /opt/new/x /opt/new/y; ln -s x /opt/new/link
chmod 4711 /opt/new/x
touch /opt/new/.wh.x
"""
SEEN = (
    "cd /; ls -Ra etc/gone etc/kept etc/replaced opt more; cat opt/new/y etc/replaced/file; "
    "stat -c '%a %h %Y' opt/new/x"
)


class Small:
    """Two images of one base, on the machine's engine. The second one's containers answer as an IDE does,
    but for the page."""

    def __init__(self) -> None:
        tag = secrets.token_hex(4)
        self.names = (f"codepods-kept-{tag}:base", f"codepods-kept-{tag}:more")
        run("import", "--change", 'CMD ["sleep", "600"]', "-", self.names[0], given=_root())
        text = f"FROM {self.names[0]}\nRUN mkdir /more && touch /more/{tag}\nCMD {json.dumps(ANSWERING)}\n"
        run("build", "--network", "none", "-t", self.names[1], "-", given=text.encode())
        self.ids = tuple(run("inspect", "--format", "{{.Id}}", name).strip() for name in self.names)

    def remove(self) -> None:
        """From the engine, with their layers."""
        for name in (*reversed(self.names), *reversed(self.ids)):
            subprocess.run(["docker", "rmi", "-f", name], capture_output=True, check=False)


def _root() -> bytes:
    """With perl, as far as `ANSWERING` needs it."""
    parts = subprocess.run(_PARTS, capture_output=True, text=True, check=True).stdout.split()
    return small_root([PERL], parts)


def run(*arguments: str, given: bytes | None = None, timeout_s: float = 120) -> str:
    """The machine's docker."""
    argv = ["docker", *arguments]
    done = subprocess.run(argv, input=given, capture_output=True, check=True, timeout=timeout_s)
    return done.stdout.decode()


@pytest.fixture
def small() -> Iterator[Small]:
    """Gone afterwards, and with it what a test still has of it: the engine keeps an image that is in use."""
    small = Small()
    yield small
    for image_id in small.ids:
        for container_id in run("ps", "-aq", "--filter", f"ancestor={image_id}").split():
            subprocess.run(["docker", "rm", "-f", container_id], capture_output=True, check=False)
    small.remove()


def tar_of(files: dict[str, bytes], change: Callable[[tarfile.TarInfo], None] | None = None) -> bytes:
    """A tar of these; names that end in a slash are folders."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            if change is not None:
                change(info)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()

"""What a user with root does to a pod's image: all that an archive of changes could get wrong."""

TOPS = ("/etc", "/home", "/opt/kept", "/usr/local", "/usr/share", "/usr/lib/python3", "/var")

# As root in a running pod. Each line does to the image what an archive of changes could get wrong.
VANDALISM = r"""
set -e
rm -r /usr/share/git-core                                   # a deleted folder of the system
rm /etc/sudoers.d/README /etc/debconf.conf                  # deleted files of the system
rm -r /usr/share/bash-completion                            # replaced by an empty folder: opaque
mkdir /usr/share/bash-completion
rm -r /usr/share/perl5; echo file >/usr/share/perl5         # a folder replaced by a file
rm /etc/issue; mkdir -p /etc/issue/inner; echo in >/etc/issue/inner/file  # and the reverse
rm -r /usr/share/zoneinfo; ln -s /usr/share/doc /usr/share/zoneinfo       # a folder replaced by a link
mv /usr/share/python3 /usr/share/python3-moved              # a folder of the image under another name
chmod 0700 /usr/share/pam; chown 33:33 /usr/share/pam       # nothing but mode and owner
touch -d '1960-01-02 03:04:05.123456789' /etc/os-release.old
touch -d '2100-01-02 03:04:05.987654321' /usr/share/common-licenses
mkdir -p /opt/kept/a /opt/kept/b
cp /bin/true /opt/kept/a/setuid; chmod 4755 /opt/kept/a/setuid
ln /opt/kept/a/setuid /opt/kept/b/second-name               # a hard link across folders
ln /usr/share/pam-configs/unix /opt/kept/of-the-image       # and one to a file of the image
cp /bin/true /opt/kept/a/capable
mkfifo /opt/kept/fifo
mknod /opt/kept/null c 1 3
mkdir -p /var/lib/docker/overlay2/abc/diff                  # an inner engine's own whiteouts
mknod /var/lib/docker/overlay2/abc/diff/inner c 1 7
printf '\0' >/opt/kept/sparse; truncate -s 1G /opt/kept/sparse
touch /opt/kept/.wh.a /opt/kept/.wh..wh..opq
"""
# The pod has no setcap; this is what it would write (linux/capability.h: version 2, CAP_NET_BIND_SERVICE).
CAPABILITY = (
    "python3 -c \"import os, struct; os.setxattr('/opt/kept/a/capable', 'security.capability', "
    "struct.pack('<IIIII', 0x02000001, 1 << 10, 0, 0, 0))\""
)

# Names and attributes, in a new folder and in one of the image, where the engine lists each by itself.
NAMES = r"""python3 - <<'END'
import os, struct
for top in (b"/opt/kept/names", b"/home/coder"):
    os.makedirs(top, exist_ok=True)
    strange = (b"two\nlines", b"\xff\xfe no utf-8", "na\u00efve \u2603".encode(), b" a b ", b"n" * 255)
    for name in (*strange, b".wh.x", b"-rf", b"\\n"):
        with open(top + b"/" + name, "wb") as file:
            file.write(name)
    os.mkdir(top + b"/folder \xfe")
    with open(top + b"/folder \xfe/inside", "wb") as file:
        file.write(b"x")
path = "/opt/kept/names/attributes"
open(path, "w").close()
os.setxattr(path, "user.a", b"\0\xffbinary")
rules = [(1, 7, 0xFFFFFFFF), (2, 5, 1000), (4, 4, 0xFFFFFFFF), (0x10, 5, 0xFFFFFFFF), (0x20, 4, 0xFFFFFFFF)]
acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *rule) for rule in rules)
os.setxattr(path, "system.posix_acl_access", acl)
END
"""

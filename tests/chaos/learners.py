"""Learners on a site: each writes, is put away and brought back, and must find every byte again."""

import random
from dataclasses import dataclass, field
from typing import Any

from node_agent import labels
from state.model import Desired
from tests.support.pod_tree import differences, pod_tree
from tests.support.site import Site, until

TOPS = ("/workspaces", "/home", "/opt", "/root", "/srv")
# 700 MB of the image, which nobody changes here: sizes, times and the rest of it have to do.
UNREAD = ("/opt/code-server",)

# All that an archive may lose: contents, holes, owners, modes, times before 1970 and after 2038, links,
# xattrs, names that are no text, a deleted system file, a folder where a file was.
_WRITE = r"""
set -e
round=$1; seed=$2; bulk=$3
cd /srv && rm -rf work && mkdir work && cd work
head -c $((seed % 300000 + 1000)) /dev/urandom >random
head -c $bulk /dev/urandom >bulk
yes "round $round" | head -c 100000 >text
mkdir -p deep/er && echo "$round" >deep/er/file
ln -f text deep/hard && ln -sf ../text deep/soft
truncate -s 3M sparse && echo end >>sparse
chown 1234:4321 random && chmod 4751 random && chmod 1777 deep
touch -d '1961-02-03 04:05:06.789' text && touch -d '2101-01-01 00:00:00.123456789' deep/er/file
printf x >"$(printf 'new\nline\xff')"
python3 -c "import os; os.setxattr('random', 'user.round', b'$round')"
mkfifo fifo
rm -f /etc/issue.net; rm -rf /opt/turn
if [ $((round % 2)) = 0 ]; then mkdir -p /opt/turn/in; else echo f >/opt/turn; fi
echo "$round" >>/workspaces/history; echo "$round" >>/home/coder/history
head -c 50000 /dev/urandom >/workspaces/data
chown -R coder /workspaces/history /workspaces/data /home/coder/history
sync
"""


@dataclass
class Learner:
    """One user with one pod."""

    site: Site
    user: str
    bulk_bytes: int = 0
    pod_id: str = ""
    tree: dict[str, Any] = field(default_factory=dict)
    cycles: int = 0

    def open(self) -> None:
        """Have a pod that runs."""
        self.pod_id = self.site.open(self.user)
        self.site.until_is(self.pod_id, "running")

    def write(self, rng: random.Random) -> None:
        """Change things, and remember how all of it looks."""
        script = f"set -- {self.cycles} {rng.randrange(1 << 30)} {self.bulk_bytes}\n{_WRITE}"
        self.site.run_as_root(self.pod_id, script)
        self.tree = self._tree()

    def want(self, desired: Desired) -> None:
        """A wish; the site has to bring it about, whatever happens to it."""
        self.site.want(self.pod_id, desired)

    def await_archived(self) -> None:
        """Nothing of it is on any node."""
        self.site.until(self.pod_id, lambda status: status.actual == "archived" and status.node_id is None)

    def check(self) -> None:
        """It runs, once, and every file is as it was."""
        self.site.until_is(self.pod_id, "running")
        until(lambda: self.site.answers(self.pod_id), lambda: self.site.explain(self.pod_id))
        assert differences(self.tree, self._tree()) == {}
        self.cycles += 1

    def go_round(self) -> None:
        """Put away and brought back: from now on there is an archive of it."""
        self.want(Desired.ARCHIVED)
        self.await_archived()
        self.want(Desired.RUNNING)
        self.check()

    def _tree(self) -> dict[str, Any]:
        return pod_tree(self._container(), TOPS, unread=UNREAD, shapes=True)

    def _container(self) -> str:
        """The pod's container; there is one, on one node."""
        found = [
            container
            for agent in self.site.agents
            for container in agent.node.parts.runtime.of_pod(self.pod_id)
            if not labels.is_partial(container.name)
        ]
        (container,) = found
        return container.id


def leftovers(site: Site, learners: int) -> int:
    """Containers and volumes beyond one of each for every learner."""
    return site.left_on_nodes() - 2 * learners

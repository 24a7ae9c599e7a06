"""The node of a folder, `home`: its data, its configuration, its log and `node.json`, which tells where it
listens and its process.

It may be killed or stopped by any signal: `start` brings it back on the same port with the same data, and
does nothing when it serves already. Nodes of different folders run side by side.

The jars are kept in ${SLABCACHE_CACHE:-${XDG_CACHE_HOME:-~/.cache}/slabcache}/cassandra-VERSION, for all
checkouts.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
import re
import shutil
import signal
import socket
import string
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

__all__ = ["HOME", "HOST", "VERSION", "Node", "NodeError", "check", "fetch", "say"]

VERSION = "5.0.6"
PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1"
HERE = Path(__file__).resolve().parent
HOME = HERE.parent.parent / "build" / "cassandra"  # of the node of `make cassandra`
HOST = "127.0.0.1"
SERVES_WITHIN = 300  # seconds; a loaded machine takes its time
STOPS_WITHIN = 60
OPTIONS, SUPPORTED = 5, 6  # of CQL's binary protocol


class NodeError(Exception):
    """Told to the user in one line."""


# ---- what the machine has ---------------------------------------------------------------------------


def find_java() -> str:
    """A Java 17: Cassandra 5 runs on 11 and 17, and the flags here are those for 17."""
    homes = [os.environ.get("JAVA_HOME"), *sorted(map(str, Path("/usr/lib/jvm").glob("*17*")))]
    candidates = [shutil.which("java"), *(f"{home}/bin/java" for home in homes if home)]
    for candidate in filter(None, candidates):
        with contextlib.suppress(OSError):
            told = subprocess.run([candidate, "-version"], capture_output=True, text=True, check=False).stderr
            if re.search(r'version "17[."]', told):
                return candidate
    raise NodeError("there is no Java 17 (Debian, Ubuntu: apt install openjdk-17-jre-headless)")


def find_maven() -> str:
    maven = shutil.which("mvn")
    if maven is None:
        raise NodeError("there is no Maven to fetch the server with (Debian, Ubuntu: apt install maven)")
    return maven


def check() -> None:
    """Is there all it takes to run a server?"""
    try:
        find_java()
        if not jars_folder().is_dir():
            find_maven()
    except NodeError as error:
        raise NodeError(f"{error}; CassandraStore is not tested on a real server without it") from None


def cache_folder() -> Path:
    # HOME may be an empty string, which expands to this folder.
    home = os.environ.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir
    caches = os.environ.get("XDG_CACHE_HOME") or Path(home) / ".cache"
    return Path(os.environ.get("SLABCACHE_CACHE") or Path(caches) / "slabcache").absolute()


def jars_folder() -> Path:
    return cache_folder() / f"cassandra-{VERSION}"


def fetch() -> Path:
    """The folder of the server's jars, filled by Maven if it is not there."""
    jars = jars_folder()
    jars.parent.mkdir(parents=True, exist_ok=True)
    with (jars.parent / f"{jars.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another checkout may be fetching right now
        if jars.is_dir():
            return jars
        maven = find_maven()
        say(f"fetching Cassandra {VERSION} with Maven, once")
        half = jars.with_name(f"{jars.name}.part")
        shutil.rmtree(half, ignore_errors=True)
        command = [maven, "--batch-mode", "-f", str(HERE / "pom.xml"), f"-Dcassandra.version={VERSION}"]
        command += [f"{PLUGIN}:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={half}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NodeError("Maven could not fetch the server:\n" + last_lines(done.stdout + done.stderr))
        half.rename(jars)
    return jars


# ---- the node ---------------------------------------------------------------------------------------


class Node:
    """The node of one folder. One that is `secure` asks clients for a password and for TLS."""

    def __init__(self, home: Path = HOME, *, secure: bool = False) -> None:
        self.home = home.absolute()
        self.log = self.home / "log"
        self.secure = secure

    def facts(self) -> dict[str, Any]:
        """What `node.json` says, such as `host`, `port` and `version`; empty before the first start."""
        try:
            return dict(json.loads((self.home / "node.json").read_text()))
        except FileNotFoundError:
            return {}

    def pid(self) -> int | None:
        """The process of the node if it is alive; its number may be another's by now."""
        pid = self.facts().get("pid")
        with contextlib.suppress(OSError):
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            if f"-Dcassandra.storagedir={self.home}".encode() in command.split(b"\0"):
                return int(str(pid))
        return None

    def address(self) -> dict[str, Any]:
        """Where it listens, as options of a `CassandraStore`."""
        facts = self.facts()
        return {"hosts": facts["host"], "port": facts["port"]}

    def url(self, keyspace: str) -> str:
        """The same for the services of the example."""
        facts = self.facts()
        return f"cassandra://{facts['host']}:{facts['port']}/{keyspace}"

    def start(self, port: int | None = None) -> None:
        """Returns when it serves; at once if it does. A free port if none is given."""
        java, jars = find_java(), fetch()
        self.home.mkdir(parents=True, exist_ok=True)
        with (self.home / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            pid = self.pid()
            if pid is None:
                pid = self.launch(java, jars, port)
            elif port not in (None, self.facts()["port"]):
                raise NodeError(f"the node in {self.home} runs already, at port {self.facts()['port']}")
            self.wait(pid)

    def launch(self, java: str, jars: Path, port: int | None) -> int:
        # The ports of the first start are kept: a client that knows the node finds it again.
        before = self.facts()
        facts = {
            "version": VERSION,
            "host": HOST,
            "port": port or before.get("port") or free_port(),
            "storage_port": before.get("storage_port") or free_port(),
            "secure": self.secure,
        }
        authenticator = "PasswordAuthenticator" if self.secure else "AllowAllAuthenticator"
        words = {**facts, "home": self.home, "authenticator": authenticator}
        template = (HERE / "cassandra.yaml").read_text()
        if self.secure:
            template += (HERE / "secure.yaml").read_text()
            self.make_certificate(java)
        (self.home / "cassandra.yaml").write_text(string.Template(template).substitute(words))
        scratch = self.home / "scratch"  # native libraries, left behind by a server that was killed
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        options = [f"@{HERE / 'jvm17.options'}", *(f"-javaagent:{jar}" for jar in jars.glob("jamm-*.jar"))]
        properties = {
            "cassandra.config": (self.home / "cassandra.yaml").as_uri(),
            "cassandra.storagedir": self.home,
            "logback.configurationFile": HERE / "logback.xml",
            "java.io.tmpdir": scratch,
        }
        options += [f"-D{name}={value}" for name, value in properties.items()]
        command = [java, *options, "-cp", f"{jars}/*", "org.apache.cassandra.service.CassandraDaemon"]
        # From a shell that ends: so it is no child of ours, which we would have to wait for.
        detached = ["sh", "-c", '"$@" </dev/null >log 2>&1 & echo $!', "sh", *map(str, command)]
        pid = int(subprocess.check_output(detached, cwd=self.home, start_new_session=True))
        half = self.home / "node.json.part"
        half.write_text(json.dumps({**facts, "pid": pid}) + "\n")
        half.rename(self.home / "node.json")
        return pid

    def make_certificate(self, java: str) -> None:
        """A key for the server, and `server.pem`, the certificate that clients are to trust."""
        if (self.home / "server.pem").exists():
            return
        keytool = str(Path(java).resolve().with_name("keytool"))
        store = ["-alias", "server", "-keystore", str(self.home / "server.p12"), "-storepass", "cassandra"]
        named = ["-dname", "CN=slabcache", "-ext", f"SAN=IP:{HOST}", "-validity", "3650"]
        written = ["-rfc", "-file", str(self.home / "server.pem")]
        for command in (["-genkeypair", "-keyalg", "RSA", *named], ["-exportcert", *written]):
            subprocess.run([keytool, *command, *store], check=True, capture_output=True)

    def wait(self, pid: int) -> None:
        """Until it serves."""
        give_up = time.monotonic() + SERVES_WITHIN
        while not self.serves():
            trouble = "has ended" if ended(pid) else "is slow" if time.monotonic() > give_up else ""
            if trouble:
                lines = last_lines(self.log.read_text(errors="replace"))
                raise NodeError(f"the server {trouble}; the last lines of {self.log}:\n{lines}")
            time.sleep(0.1)

    def serves(self) -> bool:
        """Does it answer? Asked with the smallest request of CQL's binary protocol."""
        if self.facts()["secure"]:  # a handshake would say no more than that there is a listener
            return "Startup complete" in self.log.read_text()
        try:
            with socket.create_connection((HOST, self.facts()["port"]), timeout=5) as connection:
                connection.sendall(struct.pack(">BBhBI", 4, 0, 0, OPTIONS, 0))
                answer = connection.recv(9, socket.MSG_WAITALL)
        except OSError:
            return False
        return len(answer) == 9 and answer[4] == SUPPORTED

    def stop(self) -> None:
        pid = self.pid()
        if pid is None:
            return
        os.kill(pid, signal.SIGTERM)
        self.resume()  # it may be standing still
        give_up = time.monotonic() + STOPS_WITHIN
        while self.pid() is not None and not ended(pid):
            if time.monotonic() > give_up:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)

    def kill(self) -> None:
        """Without warning."""
        pid = self.pid()
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            while not ended(pid):
                time.sleep(0.01)

    def halt(self) -> None:
        """It keeps its connections and takes what is sent, but does nothing."""
        pid = self.pid()
        if pid is None:
            raise NodeError(f"there is no node running in {self.home}")
        os.kill(pid, signal.SIGSTOP)
        while state(pid) not in "TZ":
            time.sleep(0.01)

    def resume(self) -> None:
        pid = self.pid()
        if pid is not None:
            os.kill(pid, signal.SIGCONT)


def state(pid: int) -> str:
    """As in `ps`: T is halted; Z has ended, and its parent has not asked for its status yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def ended(pid: int) -> bool:
    return state(pid) == "Z"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return int(listener.getsockname()[1])


def last_lines(text: str) -> str:
    return "\n".join(text.splitlines()[-30:])


def say(text: str) -> None:
    print(f"cassandra: {text}", file=sys.stderr, flush=True)

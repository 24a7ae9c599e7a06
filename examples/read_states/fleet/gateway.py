"""The gateway: a stock nginx that sends each user to the instance that the ring names, and to no other.

It lives in a folder: configuration, log, process id. `nginx -s reload` keeps connections: processes with the
old configuration finish what they have, new ones take what comes.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

from read_states.fleet.ring import Ring

__all__ = ["NO_NGINX", "Gateway", "find_nginx"]

NO_NGINX = "there is no nginx (Debian, Ubuntu: apt install nginx)"

DRAIN = 5.0  # seconds that old processes get for requests under way; sessions may last longer

CONFIGURATION = """\
daemon off;
pid nginx.pid;
worker_processes auto;
worker_shutdown_timeout 1h;  # for sessions that began before a reload
events { worker_connections 4096; }

http {
    access_log off;
    error_log error.log crit;  # below that it is a line for each request while an instance is away
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi; scgi_temp_path scgi;

    # $uri is decoded; instances read 007 as 7. What names no user may go to any instance.
    map $uri $user {
        "~^/users/0*(?<number>[0-9]+)/" $number;
        default $request_id;
    }
    map $http_upgrade $connection_to_instance { "" ""; default upgrade; }

    upstream instances {
        hash $user consistent;
        SERVERS
        keepalive 64;
    }

    server {
        listen ADDRESS;
        client_max_body_size 64k;
        client_body_buffer_size 64k;
        client_header_timeout 10s;  # these four as the limits of an instance, limits.py
        client_body_timeout 10s;
        send_timeout 20s;
        large_client_header_buffers 4 4k;
        keepalive_requests 100000;

        proxy_http_version 1.1;
        proxy_set_header Host $host;
        proxy_set_header Connection $connection_to_instance;
        proxy_set_header Upgrade $http_upgrade;
        proxy_next_upstream off;  # a user never moves to another instance because its own fails
        proxy_connect_timeout 2s;
        proxy_read_timeout 10s;
        proxy_max_temp_file_size 0;

        location /users/ {
            proxy_pass http://instances;
            error_page 502 504 = @no_instance;
        }
        location ~ ^/users/[^/]+/session$ {
            proxy_pass http://instances;
            proxy_read_timeout 1h;
            error_page 502 504 = @no_instance;
        }
        location = /mentions {  # 502, 504: perhaps counted
            proxy_pass http://instances;
            proxy_next_upstream error timeout;  # of a POST only as long as it has not been sent
        }
        location = /healthz { proxy_pass http://instances; }
        location / { return 404; }
        location @no_instance {
            internal;
            default_type application/json;
            add_header Retry-After 1 always;
            return 503 '{"error":"the instance of this user is not there"}';
        }
    }
}
"""


def find_nginx() -> str | None:
    """nginx, also where PATH leaves out what is for administrators."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


class Gateway:
    """nginx in a folder, in front of the instances of a ring."""

    def __init__(self, folder: Path, address: str) -> None:
        nginx = find_nginx()
        if nginx is None:
            raise FileNotFoundError(NO_NGINX)
        self.address = address
        self._folder = folder.absolute()
        self._command = [nginx, "-p", f"{self._folder}/", "-e", "error.log", "-c", "nginx.conf"]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self, ring: Ring) -> None:
        """Returns when it serves."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._configure(ring)
        self._process = subprocess.Popen(self._command)
        while not self._workers():
            if self.pid is None:
                raise ChildProcessError(f"nginx has ended, see {self._folder}/error.log")
            time.sleep(0.01)

    def reload(self, ring: Ring) -> None:
        """Returns when no new connection, and after `DRAIN` no request, is served by the ring before."""
        self._configure(ring)
        before = self._workers()
        subprocess.run([*self._command, "-s", "reload"], check=True)
        deadline = time.monotonic() + DRAIN
        while before & self._workers() and time.monotonic() < deadline:
            time.sleep(0.01)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()

    def _configure(self, ring: Ring) -> None:
        servers = [f"server {instance} max_fails=0;" for instance in ring.instances]
        text = CONFIGURATION.replace("ADDRESS", self.address).replace("SERVERS", "\n        ".join(servers))
        part = self._folder / "nginx.conf.part"
        part.write_text(text)
        part.replace(self._folder / "nginx.conf")
        subprocess.run([*self._command, "-t", "-q"], check=True)

    def _workers(self) -> set[int]:
        """The processes that serve: children of the one that we started."""
        pid = self.pid
        if pid is None:
            return set()
        return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}

"""The servers under test: started on free loopback ports, stopped by their own process ids."""

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path

import psycopg

import wire

POSTGRES_BIN = Path(os.environ.get("POSTGRES_BIN", "/usr/lib/postgresql/15/bin"))
ZOOKEEPER_JAR = Path("/usr/share/java/zookeeper.jar")  # Debian's package; its manifest names the rest


class Trouble(Exception):
    """Something could not be measured; the message says why."""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def die_with_parent():
    """Even a harness that is killed leaves nothing behind (Linux)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def tail(path, lines=15):
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""


class Namespace:
    """A network of its own for a server: its loopback, and a cable to a switch that all share."""

    # Two runs do not see each other.
    switch, subnet = f"oribi{os.getpid() % 100_000}", f"10.77.{os.getpid() % 256}"

    def __init__(self, number):
        self.name, self.cable = f"{self.switch}-{number}", f"ob{os.getpid() % 100_000}-{number}"
        self.address = f"{self.subnet}.{number + 10}"
        for line in (f"netns add {self.name}",
                     f"link add {self.cable} type veth peer name eth0 netns {self.name}",
                     f"link set {self.cable} master {self.switch} up",
                     f"-n {self.name} addr add {self.address}/24 dev eth0",
                     f"-n {self.name} link set eth0 up", f"-n {self.name} link set lo up"):
            ip(line)

    @classmethod
    def plug_in(cls, stack):
        """Makes the switch, on which this process has an address of its own; that address."""
        ip(f"link add {cls.switch} type bridge")
        stack.callback(ip, f"link del {cls.switch}")
        ip(f"addr add {cls.subnet}.1/24 dev {cls.switch}")
        ip(f"link set {cls.switch} up")
        return f"{cls.subnet}.1"

    def remove(self):
        ip(f"netns del {self.name}")

    def cut(self, yes):
        """Nothing arrives any more, and nobody is told."""
        ip(f"link set {self.cable} {'down' if yes else 'up'}")

    @contextmanager
    def inside(self):
        """What the calling thread connects to meanwhile is in there."""
        libc = ctypes.CDLL(None, use_errno=True)
        with open("/proc/thread-self/ns/net") as here, open(f"/run/netns/{self.name}") as there:
            if libc.setns(there.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
            try:
                yield
            finally:
                libc.setns(here.fileno(), CLONE_NEWNET)


CLONE_NEWNET = 0x40000000


def ip(line):
    try:
        subprocess.run(["ip", *line.split()], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Trouble(f"ip {line}: {getattr(error, 'stderr', error)}") from None


class Server:
    """A child process with a log file, on 127.0.0.1:port."""

    patience = 60  # seconds to become ready, and to end

    cores = None  # all, or a set of their numbers

    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.process = None
        self.log = self.folder.with_suffix(".log")

    def prepare(self):
        """In the child, before its program begins."""
        die_with_parent()
        if self.cores:
            os.sched_setaffinity(0, self.cores)

    def spawn(self, command, **more):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen([str(part) for part in command], stdout=log, stderr=log,
                                            stdin=subprocess.DEVNULL, preexec_fn=self.prepare,
                                            cwd=self.folder, **more)

    def wait_until_ready(self):
        """Returns when ready() does not fail any more; a dead process fails at once."""
        deadline = time.monotonic() + self.patience
        while True:
            try:
                self.ready()
                return self
            except OSError as error:
                if self.process.poll() is not None:
                    raise Trouble(f"{self.process.args[0]} ended with {self.process.returncode}:\n"
                                  + tail(self.log)) from None
                if time.monotonic() > deadline:
                    raise Trouble(f"{self.process.args[0]} is not ready: {error}\n"
                                  + tail(self.log)) from None
                time.sleep(0.002)

    def stop(self, how=signal.SIGTERM):
        """Ends the process and waits for it; twice is harmless."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(how)
        try:
            self.process.wait(self.patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def kernel_bytes(self, figure):
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(f"{figure}:"):
                return int(line.split()[1]) * 1024
        raise Trouble(f"no {figure}")

    def resident_bytes(self):
        return self.kernel_bytes("VmRSS")

    def peak_bytes(self):
        """The most that was resident since the start, or since reset_peak()."""
        return self.kernel_bytes("VmHWM")

    def reset_peak(self):
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")


class Sql(Server):
    """A server that speaks PostgreSQL's protocol."""

    user = database = "oribi"

    namespace = None  # that of the machine

    def inside(self):
        return self.namespace.inside() if self.namespace else nullcontext()

    def ready(self):
        with self.inside():
            connection = wire.Connection(self.port, self.user, self.database, timeout=5)
        with connection:
            connection.simple("SELECT 1")

    def dsn(self):
        return f"host=127.0.0.1 port={self.port} user={self.user} dbname={self.database}"

    def raw(self):
        return wire.Connection(self.port, self.user, self.database)

    def connect(self):
        """Without psycopg's own preparing after five times, which would change the run midway."""
        with self.inside():
            return psycopg.connect(self.dsn(), autocommit=True, prepare_threshold=None)


class Oribi(Sql):
    def __init__(self, binary, folder, zookeeper=None, identity=None, warehouse=None,
                 maintenance=None, cores=None, namespace=None, compression=None,
                 results=None, memory=None):
        super().__init__(folder)
        self.cores, self.namespace = cores, namespace
        self.binary = Path(binary).resolve()
        self.flags = {"--zookeeper": zookeeper, "--id": identity, "--warehouse": warehouse}
        # What is measured is how statements run, not that they are known.
        self.variables = {"ORIBI_ENGINE_RESULT_CACHE": results or "0",
                          "ORIBI_MAINTENANCE_INTERVAL": maintenance,
                          "ORIBI_DISTRIBUTION_COMPRESSION": compression,
                          "ORIBI_ENGINE_MEMORY_LIMIT": memory}

    def start(self):
        peer = self.namespace.address if self.namespace else "127.0.0.1"
        command = [self.binary, "serve", "--data-dir", self.folder,
                   "--postgres", f"127.0.0.1:{self.port}",
                   "--peer", f"{peer}:0", "--web", "127.0.0.1:0"]
        if self.namespace:
            command = ["ip", "netns", "exec", self.namespace.name, *command]
        for flag, value in self.flags.items():
            command += [flag, value] if value else []
        given = {name: value for name, value in self.variables.items() if value}
        self.spawn(command, env=os.environ | given)
        return self.wait_until_ready()

    def define(self, table, path):
        """An external table; one of that name from an earlier suite is replaced."""
        with self.connect() as connection:
            connection.execute(f"DROP TABLE IF EXISTS {table}")
            connection.execute(f"CREATE EXTERNAL TABLE {table} STORED AS PARQUET LOCATION '{path}'")

    def version(self):
        """0.1.0 of `oribi 0.1.0`."""
        return subprocess.check_output([self.binary, "--version"], text=True).split()[1]


class Postgres(Sql):
    """A cluster of its own with a quarter of the memory as shared buffers, otherwise defaults."""

    def __init__(self, folder):
        super().__init__(folder)
        if not (POSTGRES_BIN / "postgres").exists():
            raise Trouble(f"no PostgreSQL in {POSTGRES_BIN}; say where with POSTGRES_BIN")
        self.account = {}
        if os.geteuid() == 0:  # postgres refuses to run as root
            shutil.chown(self.folder, "postgres", "postgres")
            self.account = {"user": "postgres", "group": "postgres", "extra_groups": []}

    def start(self):
        files = self.folder / "data"
        if not files.exists():
            made = subprocess.run([POSTGRES_BIN / "initdb", "-D", files, "-U", self.user, "-A",
                                   "trust", "-E", "UTF8", "--locale=C"], capture_output=True,
                                  text=True, cwd=self.folder, **self.account)
            if made.returncode:
                raise Trouble(made.stderr)
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4 >> 20
        settings = {"port": self.port, "listen_addresses": "127.0.0.1",
                    "unix_socket_directories": self.folder, "shared_buffers": f"{memory}MB",
                    "max_wal_size": "8GB"}
        options = [part for k, v in settings.items() for part in ("-c", f"{k}={v}")]
        self.database = "postgres"
        self.spawn([POSTGRES_BIN / "postgres", "-D", files, *options], **self.account)
        return self.wait_until_ready()

    def stop(self, how=signal.SIGINT):
        super().stop(how)  # SIGINT is PostgreSQL's fast shutdown

    def version(self):
        return subprocess.check_output([POSTGRES_BIN / "postgres", "--version"], text=True).split()[2]


class ZooKeeper(Server):
    """A standalone ensemble member from Debian's package."""

    def __init__(self, folder, host="127.0.0.1"):
        super().__init__(folder)
        self.host = host
        if not ZOOKEEPER_JAR.exists() or not shutil.which("java"):
            raise Trouble("no ZooKeeper (Debian's packages zookeeper and a Java runtime)")

    def start(self):
        config = self.folder / "zoo.cfg"
        config.write_text(f"tickTime=2000\ndataDir={self.folder}\nclientPort={self.port}\n"
                          f"clientPortAddress={self.host}\nadmin.enableServer=false\n"
                          "4lw.commands.whitelist=srvr,mntr\n")
        self.spawn(["java", "-Xmx512m", "-cp", ZOOKEEPER_JAR,
                    "org.apache.zookeeper.server.quorum.QuorumPeerMain", config])
        return self.wait_until_ready()

    def ask(self, word, separator):
        """The answer to a four-letter word, as a dictionary."""
        with socket.create_connection((self.host, self.port), timeout=5) as connection:
            connection.sendall(word)
            text = b"".join(iter(lambda: connection.recv(4096), b"")).decode()
        lines = (line.split(separator, 1) for line in text.splitlines())
        return {line[0]: line[1] for line in lines if len(line) == 2}

    def srvr(self):
        return self.ask(b"srvr", ": ")

    def mntr(self):
        return self.ask(b"mntr", "\t")

    def ready(self):
        if "Zxid" not in self.srvr():
            raise OSError("not serving yet")

    def zxid(self):
        """Grows by one with every write."""
        return int(self.srvr()["Zxid"], 16)

    def version(self):
        return self.srvr()["Zookeeper version"].split("-")[0]

//! A real PostgreSQL, from the package of the operating system: a fresh cluster of its own.
//!
//! `ORIBI_TEST_POSTGRES` names another directory of its programs.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::daemon::PATIENCE;

/// Where Debian keeps the programs of each version; the newest one last.
const PACKAGED: &str = "/usr/lib/postgresql";

/// A running server: superuser and database `oribi`, everybody on 127.0.0.1 trusted. Stopped when
/// dropped, or when the test process dies.
#[derive(Debug)]
pub struct Server {
    directory: TempDir,
    port: u16,
    /// A shell that stops the server as soon as its own standard input ends.
    guardian: Child,
}

/// A program of the server, such as `pgbench`.
pub fn program(name: &str) -> PathBuf {
    let directory = std::env::var_os("ORIBI_TEST_POSTGRES").map_or_else(packaged, PathBuf::from);
    let program = directory.join(name);
    assert!(
        program.exists(),
        "{} is missing: these tests need a real PostgreSQL; on Debian, \
         `apt-get install postgresql postgresql-contrib`",
        program.display()
    );
    program
}

fn packaged() -> PathBuf {
    let versions = fs::read_dir(PACKAGED).into_iter().flatten().flatten();
    let newest = versions
        .map(|entry| entry.path())
        .max_by_key(|path| path.file_name()?.to_str()?.parse::<u32>().ok());
    newest.unwrap_or_else(|| PACKAGED.into()).join("bin")
}

impl Server {
    /// Makes a cluster, starts its server and waits until it serves.
    pub fn start() -> Self {
        let directory = TempDir::with_prefix("oribi-postgres-").expect("a temporary directory");
        let data = directory.path().join("data");
        let owner = owner();
        if let Some((user, group)) = owner {
            chown(directory.path(), Some(user), Some(group)).expect("root may give files away");
            fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))
                .expect("permissions are set");
        }
        let mut initdb = command(&program("initdb"), owner);
        initdb
            .args(["--username=oribi", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8"])
            .args(["--no-sync", "--pgdata"])
            .arg(&data);
        let made = initdb.output().expect("initdb starts");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        // Free now; whoever takes it in between makes the test fail, not lie.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        drop(listener);
        let log = fs::File::create(directory.path().join("log")).expect("a log file");
        let mut guardian = command(Path::new("sh"), owner);
        guardian
            .args(["-c", "\"$@\" >/dev/null & read -r _; kill -INT $!; wait $!", "sh"])
            .arg(program("postgres"))
            .arg("-D")
            .arg(&data)
            .args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1"])
            .args(["-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "timezone=UTC"])
            .args(["-c", "shared_buffers=32MB", "-c", "autovacuum=off"])
            .stdin(Stdio::piped())
            .stderr(log);
        let guardian = guardian.spawn().expect("sh starts");
        let server = Self { directory, port, guardian };
        server.wait_until_serving();
        server
    }

    fn wait_until_serving(&self) {
        let give_up = Instant::now() + PATIENCE;
        let mut create = Command::new("psql");
        create.args(["-X", "-q", "-U", "oribi", "-d", "postgres", "-h", "127.0.0.1"]);
        create.args(["-p", &self.port.to_string(), "-c", "CREATE DATABASE oribi"]);
        while !create.output().expect("psql starts").status.success() {
            assert!(Instant::now() < give_up, "PostgreSQL does not serve:\n{}", self.log());
            sleep(Duration::from_millis(50));
        }
    }

    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.guardian.stdin.take());
        let _ = self.guardian.wait();
    }
}

/// PostgreSQL refuses to run as root: then the package's own user runs it.
fn owner() -> Option<(u32, u32)> {
    let root = fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
    root.then(|| {
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let found = users.lines().find_map(|line| {
            let fields: Vec<_> = line.strip_prefix("postgres:")?.split(':').collect();
            Some((fields.get(1)?.parse().ok()?, fields.get(2)?.parse().ok()?))
        });
        found.expect("a user `postgres`, made by the package")
    })
}

fn command(program: &Path, owner: Option<(u32, u32)>) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/").env("LC_ALL", "C.UTF-8");
    if let Some((user, group)) = owner {
        command.uid(user).gid(group);
    }
    command
}

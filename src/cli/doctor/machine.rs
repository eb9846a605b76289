//! This machine: directories, storage, ports, limits, memory, certificates.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use chrono::Utc;
use datafusion::execution::object_store::ObjectStoreRegistry;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt};
use rustix::process::{Resource, getrlimit};
use url::Url;

use super::{Check, Status};
use crate::config::{Config, Share, TlsMode};
use crate::data_dir::{self, DataDir};
use crate::engine::memory;
use crate::storage::{Location, Roots, Stores};
use crate::wording::counted;
use crate::{id, secret, tls};

/// Free bytes below which statements soon fail, and below which a daemon can hardly start.
const LITTLE: u64 = 5 << 30;
const HARDLY: u64 = 256 << 20;

/// Files that a daemon opens beside its connections.
const FILES: u64 = 1024;

/// Days of a certificate's life that are left.
const SOON: i64 = 14;

/// How long a remote store has for one small file.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(15);

pub async fn checks(config: &Config) -> Vec<Check> {
    let (directory, holder) = data_dir(config);
    let mut checks = directory;
    checks.extend(storage(config).await);
    let ports = [("postgres", config.postgres), ("peer", config.peer), ("web", config.web)];
    checks.extend(ports.map(|(key, address)| port(key, address, holder.as_deref())));
    checks.push(open_files(config));
    checks.push(memory_limit(config));
    checks.extend(certificates(config));
    checks.extend(password_file(config));
    checks
}

/// The file with the first password, if there is to be one.
fn password_file(config: &Config) -> Option<Check> {
    const NAME: &str = "password file";
    let path = config.connections.superuser_password_file.as_ref()?;
    let shown = path.display();
    let read = fs::read_to_string(path).and_then(|text| Ok((text, secret::is_open(path)?)));
    Some(match read {
        Ok((_, true)) => Check::warn(
            NAME,
            format!("{shown} is open to all users of this machine"),
            format!("chmod o= {shown}, and change the password: ALTER ROLE oribi PASSWORD '...'"),
        ),
        Ok((text, false)) if text.trim_end_matches(['\r', '\n']).is_empty() => {
            Check::warn(NAME, format!("{shown} is empty"), "write the password into it")
        }
        Ok((_, false)) => Check::ok(NAME, format!("{shown} can be read, and not by everybody")),
        Err(error) => Check::warn(
            NAME,
            format!("{shown} cannot be read: {error}"),
            "a daemon whose role oribi has no password yet does not start: have its user read it",
        ),
    })
}

/// The checks of the data directory, and the process that has it, if one does.
fn data_dir(config: &Config) -> (Vec<Check>, Option<String>) {
    const NAME: &str = "data_dir";
    let Some(path) = &config.data_dir else {
        let mend = "give --data-dir, ORIBI_DATA_DIR, or data_dir in the file";
        return (vec![Check::fail(NAME, "not set: oribi serve needs it", mend)], None);
    };
    let shown = path.display();
    if !path.exists() {
        let parent = path.ancestors().find(|parent| parent.exists()).unwrap_or(Path::new("/"));
        let check = match write_here(parent) {
            Ok(()) => {
                Check::ok(NAME, format!("{shown} is not there yet: the first start makes it"))
            }
            Err(error) => Check::fail(
                NAME,
                format!("{shown} cannot be made in {}: {error}", parent.display()),
                mend_of(&error, parent, NAME, &format!("mkdir -p {shown}, and {}", owned(path))),
            ),
        };
        return (vec![check, room("room for data_dir", parent)], None);
    }
    let spill = config.engine.spill_dir.as_ref().filter(|spill| spill.is_dir());
    let mut checks: Vec<Check> =
        spill.map(|spill| self::room("room for spill", spill)).into_iter().collect();
    let (found, holder) = match DataDir::open(path) {
        Ok(_free) => (Ok(format!("{shown} can be written to, and nobody uses it")), None),
        Err(data_dir::Error::InUse { holder, .. }) => {
            (Ok(format!("a daemon runs with {shown} ({holder})")), Some(holder))
        }
        Err(error @ data_dir::Error::NotADirectory { .. }) => {
            return (vec![Check::fail(NAME, error, "another --data-dir")], None);
        }
        Err(data_dir::Error::Io { path: place, source }) => {
            let mend = mend_of(&source, path, NAME, &owned(path));
            let seen = format!("{} cannot be used: {source}", place.display());
            (Err(Check::fail(NAME, seen, mend)), None)
        }
    };
    let check = found.and_then(|seen| match write_here(path) {
        Ok(()) => Ok(seen),
        Err(error) => {
            let mend = mend_of(&error, path, NAME, &owned(path));
            Err(Check::fail(NAME, format!("{shown} cannot be written to: {error}"), mend))
        }
    });
    // Where nothing can be written, room is not what is lacking.
    checks.extend(check.is_ok().then(|| room("room for data_dir", path)));
    checks.insert(0, check.map_or_else(|failed| failed, |seen| Check::ok(NAME, seen)));
    (checks, holder)
}

/// What to do where the daemon's user may not write.
fn owned(path: &Path) -> String {
    format!("chown it to the daemon's user: chown -R oribi {}", path.display())
}

/// What to do about a place on this machine that cannot be written to, which a setting names; `else_do` where
/// it is neither the room nor the file system.
fn mend_of(error: &io::Error, place: &Path, setting: &str, else_do: &str) -> String {
    let place = place.display();
    match error.kind() {
        io::ErrorKind::StorageFull => format!(
            "its file system is full (df -h {place}, df -i {place}): make room there, or move it to a larger one \
             and have {setting} say where it is"
        ),
        io::ErrorKind::QuotaExceeded => format!(
            "the quota of the daemon's user in {place} is used up: raise it, make room, or move it and have {setting} \
             say where it is"
        ),
        io::ErrorKind::ReadOnlyFilesystem => format!(
            "its file system is mounted read-only: mount it for writing (findmnt -T {place} shows it, mount -o \
             remount,rw changes it; the kernel's log says whether it was an error of the disk), let the service \
             write there (ReadWritePaths=), or have {setting} name another place"
        ),
        _ => else_do.to_owned(),
    }
}

/// Writes, reads and removes a small file.
fn write_here(directory: &Path) -> io::Result<()> {
    let path = directory.join(format!(".oribi-doctor-{}", id::nonce().simple()));
    let tried = fs::write(&path, b"oribi").and_then(|()| fs::read(&path)).map(drop);
    match fs::remove_file(&path) {
        Err(error) if tried.is_ok() => Err(error),
        _ => tried,
    }
}

fn room(name: &str, directory: &Path) -> Check {
    let mend = "make room, or move it to a larger file system";
    let found = match rustix::fs::statvfs(directory) {
        Ok(found) => found,
        Err(error) => {
            let seen = format!("{} cannot be looked at: {error}", directory.display());
            return Check::warn(name, seen, "mend the file system");
        }
    };
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    let seen = format!("{} free in {}", ByteSize(free), directory.display());
    match free {
        free if free < HARDLY => Check::fail(name, seen, mend),
        free if free < LITTLE => Check::warn(name, seen, mend),
        _ => Check::ok(name, seen),
    }
}

/// The warehouse, and the roots of external tables.
async fn storage(config: &Config) -> Vec<Check> {
    let mut checks = Vec::new();
    match (&config.warehouse, &config.zookeeper) {
        (Some(place), _) => {
            let check = written("warehouse", place).await;
            let path = place.strip_prefix("file://").unwrap_or(place);
            let existing = Path::new(path).ancestors().find(|path| path.is_dir());
            let existing = existing.filter(|_| !path.contains("://") && check.status == Status::Ok);
            checks.push(check);
            checks.extend(existing.map(|path| room("room for warehouse", path)));
        }
        (None, Some(_)) => checks.push(Check::warn(
            "warehouse",
            "not set: there can be external tables only",
            "set a directory or bucket that all daemons share: --warehouse s3://bucket/path",
        )),
        (None, None) => {
            let own = config.data_dir.as_ref().map(|path| path.join(data_dir::WAREHOUSE));
            if let Some(own) = own.filter(|own| own.is_dir()) {
                checks.push(written("warehouse", &own.to_string_lossy()).await);
            }
        }
    }
    for root in &config.storage.roots.0 {
        let name = "storage.roots";
        let check = match Roots::new(std::slice::from_ref(root)) {
            Ok(_) if root.contains("://") && !root.starts_with("file:") => listed(name, root).await,
            Ok(_) => {
                let path = root.strip_prefix("file://").unwrap_or(root);
                match fs::read_dir(path) {
                    Ok(_) => Check::ok(name, format!("{root} can be read")),
                    Err(error) => {
                        let mend = "have the daemon's user read it";
                        Check::fail(name, format!("{root} cannot be read: {error}"), mend)
                    }
                }
            }
            Err(error) => Check::fail(name, error, "make the directory, or leave it out"),
        };
        checks.push(check);
    }
    checks
}

/// A place in which a small file is written, read and removed.
async fn written(name: &str, place: &str) -> Check {
    if !place.contains("://") || place.starts_with("file://") {
        let path = PathBuf::from(place.strip_prefix("file://").unwrap_or(place));
        let existing = path.ancestors().find(|parent| parent.is_dir()).unwrap_or(Path::new("/"));
        return match write_here(existing) {
            Ok(()) => Check::ok(name, format!("{place} can be written, read and cleared")),
            Err(error) => {
                let mend =
                    format!("have the daemon's user write there: chown oribi {}", path.display());
                let mend = mend_of(&error, existing, name, &mend);
                Check::fail(name, format!("{place} cannot be written to: {error}"), mend)
            }
        };
    }
    let mend = "mend the address, the credentials in the daemon's environment (AWS_*), or the bucket's \
                policy: PutObject, GetObject, DeleteObject and ListBucket are needed";
    let tried = async {
        let (store, base) = remote(place)?;
        let path = base.join(format!(".oribi-doctor-{}", id::nonce().simple()));
        let failed = |error: object_store::Error| error.to_string();
        store.put(&path, b"oribi".to_vec().into()).await.map_err(failed)?;
        let read = store.get(&path).await.map_err(failed)?.bytes().await.map_err(failed);
        store.delete(&path).await.map_err(failed)?;
        read
    };
    match tokio::time::timeout(PATIENCE, tried).await {
        Ok(Ok(_)) => Check::ok(name, format!("{place} can be written, read and cleared")),
        Ok(Err(error)) => Check::fail(name, format!("{place}: {error}"), mend),
        Err(_) => Check::fail(name, format!("{place}: no answer within {PATIENCE:?}"), mend),
    }
}

/// A remote place that is only read.
async fn listed(name: &str, place: &str) -> Check {
    let tried = async {
        let (store, base) = remote(place)?;
        store.list_with_delimiter(Some(&base)).await.map(drop).map_err(|error| error.to_string())
    };
    let mend = "mend the address, or the credentials in the daemon's environment (AWS_*)";
    match tokio::time::timeout(PATIENCE, tried).await {
        Ok(Ok(())) => Check::ok(name, format!("{place} can be listed")),
        Ok(Err(error)) => Check::fail(name, format!("{place}: {error}"), mend),
        Err(_) => Check::fail(name, format!("{place}: no answer within {PATIENCE:?}"), mend),
    }
}

type Remote = (std::sync::Arc<dyn ObjectStore>, ObjectPath);

fn remote(place: &str) -> Result<Remote, String> {
    let location = Location::parse(place).map_err(|error| error.to_string())?;
    let url = Url::parse(location.as_str()).map_err(|error| error.to_string())?;
    let path = ObjectPath::from_url_path(url.path()).map_err(|error| error.to_string())?;
    let stores = Stores::new(&Roots::default());
    Ok((stores.get_store(&url).map_err(|error| error.to_string())?, path))
}

/// Whether a port is free, or has its daemon already.
fn port(key: &str, address: SocketAddr, own: Option<&str>) -> Check {
    let name = format!("port {key}");
    if address.port() == 0 {
        return Check::ok(name, format!("{address}: whichever is free"));
    }
    let error = match TcpListener::bind(address) {
        Ok(_) => return Check::ok(name, format!("{address} is free")),
        Err(error) => error,
    };
    match error.kind() {
        io::ErrorKind::AddrInUse => match holder(address.port()) {
            Some((pid, program)) if own == Some(format!("pid {pid}").as_str()) => {
                Check::ok(name, format!("{address} is the running daemon's ({program}, pid {pid})"))
            }
            // Socket activation: it is handed over when the daemon starts.
            Some((1, program)) if program == "systemd" => {
                Check::ok(name, format!("{address} is held open by systemd, for its service"))
            }
            Some((pid, program)) => Check::fail(
                name,
                format!("{address} is used by {program} (pid {pid})"),
                format!("end that process, or set another port: --{key} ADDR:PORT"),
            ),
            None => Check::fail(
                name,
                format!("{address} is used by a process of another user"),
                format!("ss -ltnp as root shows which; or set another port: --{key} ADDR:PORT"),
            ),
        },
        io::ErrorKind::AddrNotAvailable => Check::fail(
            name,
            format!("{} is no address of this machine", address.ip()),
            format!("one of \"ip address\", or 0.0.0.0: --{key} ADDR:PORT"),
        ),
        _ => Check::fail(
            name,
            format!("{address}: {error}"),
            format!("another address, or a port above 1023: --{key} ADDR:PORT"),
        ),
    }
}

/// The process that listens on a port, as far as this user may see it.
fn holder(port: u16) -> Option<(u32, String)> {
    const LISTEN: &str = "0A";
    let mut sockets = HashSet::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        for line in fs::read_to_string(table).unwrap_or_default().lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [_, local, _, state, ..] = fields.as_slice() else { continue };
            let listens =
                local.rsplit_once(':').and_then(|(_, text)| u16::from_str_radix(text, 16).ok());
            if *state == LISTEN && listens == Some(port) {
                sockets.extend(fields.get(9).map(|inode| format!("socket:[{inode}]")));
            }
        }
    }
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        let files = fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        let mut links = files.filter_map(|file| fs::read_link(file.path()).ok());
        if links.any(|link| sockets.contains(link.to_string_lossy().as_ref())) {
            let program = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some((pid, program.trim().to_owned()));
        }
    }
    None
}

fn open_files(config: &Config) -> Check {
    const NAME: &str = "open files";
    let wanted = config.connections.max as u64 + FILES;
    let limit = getrlimit(Resource::Nofile);
    let text =
        |limit: Option<u64>| limit.map_or("any number".to_owned(), |limit| limit.to_string());
    let seen =
        format!("{} at once (ulimit -n; at most {})", text(limit.current), text(limit.maximum));
    if limit.current.is_none_or(|current| current >= wanted) {
        return Check::ok(NAME, seen);
    }
    let mend = format!(
        "at least {wanted} for {}: ulimit -n {wanted}, or LimitNOFILE= in the service",
        counted(config.connections.max as u64, "connection")
    );
    Check::warn(NAME, seen, mend)
}

fn memory_limit(config: &Config) -> Check {
    const NAME: &str = "memory";
    let limit = memory::limit(config.engine.memory_limit);
    let available = memory::limit(Share::Percent(100));
    let caches = memory::metadata_limit(&config.engine);
    let caches = caches.saturating_add(config.engine.result_cache.0);
    let all = limit.saturating_add(caches);
    let seen = format!(
        "statements and pages of files {}, other caches {}, of {} that the machine or its control group has",
        ByteSize(limit),
        ByteSize(caches),
        ByteSize(available)
    );
    let mend = "lower engine.memory_limit, or raise the group's limit (MemoryMax=)";
    match all {
        all if all > available => Check::fail(NAME, seen, mend),
        all if all > available / 100 * 95 => Check::warn(NAME, seen, mend),
        _ => Check::ok(NAME, seen),
    }
}

fn certificates(config: &Config) -> Vec<Check> {
    let mut files = vec![
        ("peers.certificate", &config.peers.certificate),
        ("peers.ca", &config.peers.ca),
        ("coordination.tls_certificate", &config.coordination.tls_certificate),
        ("coordination.tls_ca", &config.coordination.tls_ca),
    ];
    if config.tls.mode != TlsMode::Off {
        files.push(("tls.certificate", &config.tls.certificate));
        files.push(("tls.client_ca", &config.tls.client_ca));
    }
    let mut checks = Vec::new();
    for (key, path) in files {
        let Some(path) = path else { continue };
        let name = format!("certificate {key}");
        let until = match tls::expiry(key, path) {
            Ok(until) => until,
            Err(error) => {
                checks.push(Check::fail(name, error, "put a certificate (PEM) there"));
                continue;
            }
        };
        let days = (until - Utc::now()).num_days();
        let seen = format!(
            "{} is valid until {until}, for {}",
            path.display(),
            counted(days.unsigned_abs(), "day")
        );
        let mend = "renew it; SIGHUP has the daemon read it again";
        checks.push(match days {
            _ if until < Utc::now() => {
                Check::fail(name, format!("{} was valid until {until}", path.display()), mend)
            }
            ..SOON => Check::warn(name, seen, mend),
            _ => Check::ok(name, seen),
        });
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_used_is_told_with_who_has_it() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let own = std::process::id();
        let check = port("web", address, None);
        assert_eq!(check.status, Status::Fail);
        assert!(check.seen.contains(&format!("pid {own}")), "{}", check.seen);
        let check = port("web", address, Some(&format!("pid {own}")));
        assert_eq!(check.status, Status::Ok, "{}", check.seen);
        drop(listener);
        assert_eq!(port("web", address, None).status, Status::Ok);
    }

    #[test]
    fn what_mends_a_place_is_what_is_wrong_with_it() {
        for (errno, part) in [
            (rustix::io::Errno::NOSPC, "full"),
            (rustix::io::Errno::DQUOT, "quota"),
            (rustix::io::Errno::ROFS, "remount,rw"),
            (rustix::io::Errno::ACCESS, "chown"),
        ] {
            let mend = mend_of(&errno.into(), Path::new("/d"), "data_dir", &owned(Path::new("/d")));
            assert!(mend.contains(part) && mend.contains("/d"), "{mend}");
            assert_eq!(mend.contains("chown"), part == "chown", "{mend}");
        }
    }

    #[test]
    fn small_files_leave_nothing_behind() {
        let directory = tempfile::tempdir().expect("a folder");
        write_here(directory.path()).expect("written");
        assert_eq!(fs::read_dir(directory.path()).expect("a folder").count(), 0);
    }
}

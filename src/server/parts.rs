//! What a daemon's parts are given, as its configuration says.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::{info, warn};

use super::{Addresses, Error};
use crate::audit::Audit;
use crate::catalog::{self, Catalog, Consistency, FIRST_ROLE};
use crate::cluster::{self, Membership};
use crate::config::Config;
use crate::coordination::Coordination;
use crate::data_dir::{self, DataDir, host_name};
use crate::engine::memory;
use crate::password;
use crate::secret;
use crate::storage::{Location, Roots};

/// Where files may lie.
pub(super) fn roots(config: &Config) -> Result<Roots, Error> {
    Roots::new(&config.storage.roots.0).map_err(|error| {
        let reason = format!("cannot be used: {error}");
        Error::Setting { key: "storage.roots", reason }
    })
}

/// Where managed tables are made: as configured, or for a daemon alone below its data directory.
/// Other daemons could not read what is there.
pub(super) fn warehouse(config: &Config, data_dir: &DataDir) -> Result<Option<String>, Error> {
    let directory = match &config.warehouse {
        Some(url) if url.contains("://") => {
            Location::parse(url).map_err(Error::WarehouseUrl)?;
            return Ok(Some(url.clone()));
        }
        Some(path) => PathBuf::from(path),
        None if config.zookeeper.is_some() => return Ok(None),
        None => data_dir.path().join(data_dir::WAREHOUSE),
    };
    let made = || {
        std::fs::create_dir_all(&directory)?;
        std::fs::canonicalize(&directory)
    };
    let directory = made()
        .map_err(|source| Error::Warehouse { path: directory.display().to_string(), source })?;
    Ok(Some(format!("file://{}", directory.display())))
}

/// Says so if the daemon may not use its own warehouse.
pub(super) fn tell_of_warehouse_outside(warehouse: Option<&str>, roots: &Roots) {
    let outside = warehouse.and_then(|url| Location::parse(url).ok()).map(|url| roots.check(&url));
    if let Some(Err(error)) = outside {
        warn!("the warehouse: {error}; until storage.roots has it, it has no tables");
    }
}

/// A warehouse's URL as daemons compare it: without escapes, links and a slash at its end.
pub(super) fn in_normal_form(warehouse: &str) -> String {
    let parsed = Location::parse(warehouse);
    let url = parsed.map_or_else(|_| warehouse.to_owned(), |location| location.as_written());
    let url = match url.strip_prefix("file://").map(std::fs::canonicalize) {
        Some(Ok(path)) => format!("file://{}", path.display()),
        _ => url,
    };
    let url = url.strip_prefix("s3a://").map_or_else(|| url.clone(), |rest| format!("s3://{rest}"));
    url.trim_end_matches('/').to_owned()
}

/// Joins the cluster as a daemon that has its data and its warehouse here, and is reached there.
pub(super) async fn join(
    config: &Config,
    (data_dir, warehouse, addresses): (&DataDir, Option<String>, Addresses),
    coordination: Arc<dyn Coordination>,
) -> Result<Arc<Membership>, Error> {
    let id = match &config.id {
        Some(id) => id.clone(),
        None => data_dir.default_id()?,
    };
    let reachable = |address: SocketAddr| match (&config.advertise, address.ip()) {
        (Some(host), _) => format!("{host}:{}", address.port()),
        (None, ip) if ip.is_unspecified() => format!("{}:{}", host_name(), address.port()),
        (None, _) => address.to_string(),
    };
    let options = cluster::Options {
        id,
        data_dir: data_dir.path().to_owned(),
        protected: config.zookeeper.is_none() || config.coordination.credentials.is_some(),
        store: config.zookeeper.clone().unwrap_or_else(|| "embedded".to_owned()),
        postgres: reachable(addresses.postgres),
        peer: reachable(addresses.peer),
        web: reachable(addresses.web),
        version: env!("CARGO_PKG_VERSION"),
        build: env!("ORIBI_BUILD"),
        cores: config.engine.threads.get(),
        memory: memory::limit(config.engine.memory_limit),
        warehouse,
    };
    Ok(Membership::join(coordination, options).await?)
}

/// Where it is told who came in, who was refused what, and who changed what.
pub(super) fn audit_trail(config: &Config, daemon: &str) -> Result<Audit, Error> {
    let Some(path) = config.audit.file.as_ref() else { return Ok(Audit::default()) };
    Audit::open(path, daemon).map_err(|error| Error::File {
        key: "audit.file",
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

/// Gives the first role its password, if it has none and there is one for it.
pub(super) async fn set_first_password(config: &Config, catalog: &Catalog) -> Result<(), Error> {
    let Some(path) = &config.connections.superuser_password_file else { return Ok(()) };
    // Not refused: what containers are given as secrets is open to all users, of whom there is one.
    if secret::is_open(path).is_ok_and(|open| open) {
        let path = path.display();
        warn!(
            "connections.superuser_password_file: {path} is open to all users of this machine: take \
             their rights away (chmod o= {path}), and change the password if others were here"
        );
    }
    let role = match catalog.role(FIRST_ROLE, Consistency::Strong).await {
        Ok(role) => role,
        // Dropped by somebody: there are others then.
        Err(catalog::Error::NotFound { .. }) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if role.record.password.is_some() {
        return Ok(());
    }
    let wrong = |reason: String| Error::File {
        key: "connections.superuser_password_file",
        path: path.clone(),
        reason,
    };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(wrong("the password is empty".to_owned()));
    }
    let verifier = password::verifier(password).map_err(|error| wrong(error.to_string()))?;
    let altered = catalog
        .alter_role(FIRST_ROLE, |record| {
            record.password.get_or_insert(verifier);
            Ok(())
        })
        .await;
    match altered {
        Ok(()) => {
            info!(role = FIRST_ROLE, path = %path.display(), "the first password is set");
            Ok(())
        }
        // Another daemon that starts with the same file was quicker.
        Err(catalog::Error::Conflict { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// For what does not fit into memory.
pub(super) fn spill_directory(config: &Config, data_dir: &DataDir) -> PathBuf {
    match &config.engine.spill_dir {
        // Emptied at each start, so it must be this daemon's own.
        Some(directory) => directory.join("oribi-spill"),
        None => data_dir.path().join("spill"),
    }
}

/// Refuses a directory for that which cannot be one, or is closed to the daemon. Room is another matter: that
/// may be there the next time.
pub(super) fn check_spill_directory(config: &Config, spill: &Path) -> Result<(), Error> {
    use std::io::ErrorKind;
    let (Some(_), Err(error)) = (&config.engine.spill_dir, std::fs::create_dir_all(spill)) else {
        return Ok(());
    };
    match error.kind() {
        // The engine fails for it.
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::ReadOnlyFilesystem => Ok(()),
        _ => Err(Error::File {
            key: "engine.spill_dir",
            path: spill.to_owned(),
            reason: error.to_string(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warehouse_has_one_form() {
        let folder = tempfile::tempdir().expect("a directory");
        let there = std::fs::canonicalize(folder.path()).expect("it is there").join("a b");
        std::fs::create_dir(&there).expect("a directory");
        std::os::unix::fs::symlink(&there, folder.path().join("link")).expect("a link");
        let place = folder.path().display();
        let expected = format!("file://{}", there.display());
        for written in ["a b", "a b/", "a%20b", "link", "link/"] {
            assert_eq!(in_normal_form(&format!("file://{place}/{written}")), expected, "{written}");
        }
        for written in ["s3://bucket/w", "s3a://bucket/w", "s3://bucket/w/"] {
            assert_eq!(in_normal_form(written), "s3://bucket/w");
        }
    }
}

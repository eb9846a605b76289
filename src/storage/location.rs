//! What users may write after LOCATION.

use std::fmt::{self, Display, Formatter};
use std::path::Path;

use datafusion::datasource::listing::ListingTableUrl;

use super::{Error, Result};

/// A location in its normal form: a URL, with a slash at the end of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location(String);

impl Location {
    /// Takes an absolute path or a URL. Whether a local path is a directory is looked up; a remote
    /// one is taken for a file if its last part has an extension.
    pub fn parse(text: &str) -> Result<Self> {
        if let Some(location) = without_user(text) {
            // Locations are shown to everybody who may see the table.
            let reason = "it must not name a user or a password: credentials are the daemon's own, \
                          from its environment (AWS_*)";
            return Err(Error::BadLocation { location, reason: reason.to_owned() });
        }
        let bad = |reason: String| Error::BadLocation { location: text.to_owned(), reason };
        if text.is_empty() {
            return Err(bad("it is empty".to_owned()));
        }
        let is_url = text.contains("://");
        if !is_url && !text.starts_with('/') {
            // What a relative path means would depend on the daemon, and differ between daemons.
            return Err(bad("it must be an absolute path or a URL".to_owned()));
        }
        let url = ListingTableUrl::parse(text).map_err(|error| bad(error.message().into()))?;
        if url.get_glob().is_some() {
            let reason = "*, ? and [ are no patterns here: name a file, or a directory of files";
            return Err(bad(reason.to_owned()));
        }
        let mut url = url.as_str().to_owned();
        let last = url.rsplit('/').next().unwrap_or_default();
        if !url.starts_with("file:") && !last.is_empty() && !last.contains('.') {
            url.push('/');
        }
        Ok(Self(url))
    }

    /// A location read back from the catalog.
    pub fn from_catalog(url: &str) -> Self {
        Self(url.to_owned())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn url(&self) -> Result<ListingTableUrl> {
        ListingTableUrl::parse(&self.0).map_err(|error| Error::BadLocation {
            location: self.0.clone(),
            reason: error.message().into(),
        })
    }

    /// The same without escapes, as metadata of managed tables writes it.
    pub fn as_written(&self) -> String {
        percent_encoding::percent_decode_str(&self.0).decode_utf8_lossy().into_owned()
    }

    pub fn is_directory(&self) -> bool {
        self.0.ends_with('/')
    }

    /// Refuses what is not there. Only local paths are looked at: for an object store, listing
    /// tells the same.
    pub async fn check_exists(&self) -> Result<()> {
        let Some(path) = self.local_path() else { return Ok(()) };
        match tokio::fs::metadata(&path).await {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(Error::NotFound { path })
            }
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                Err(Error::Denied { path })
            }
            Err(error) => Err(Error::Io { path, source: Box::new(error) }),
        }
    }

    /// The path of a local location without a pattern in it.
    fn local_path(&self) -> Option<String> {
        let url = url::Url::parse(&self.0).ok()?;
        let path = url.to_file_path().ok()?.display().to_string();
        (!path.contains(['*', '?', '[']) || Path::new(&path).exists()).then_some(path)
    }
}

/// A URL of another store without what stands before an `@` in its authority; `None` if nothing does.
fn without_user(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let (_, host) = authority.rsplit_once('@')?;
    Some(format!("{scheme}://{host}{path}"))
}

impl Display for Location {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_refused_and_not_repeated() {
        for text in ["s3://key:secret@bucket/a", "s3://key:secret@bucket", "s3://secret@bucket/@/"]
        {
            let error = Location::parse(text).expect_err(text).to_string();
            assert!(!error.contains("secret@") && error.contains("s3://bucket"), "{error}");
        }
        assert!(Location::parse("s3://bucket/a@b/").is_ok());
    }

    #[test]
    fn locations_have_a_normal_form() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().display().to_string();
        let parsed = Location::parse(&path).expect("absolute");
        assert_eq!(parsed.as_str(), format!("file://{path}/"));
        assert!(parsed.is_directory());
        for (text, expected) in [
            ("/no/such/file.parquet", Some("file:///no/such/file.parquet")),
            ("s3://bucket/a/b", Some("s3://bucket/a/b/")),
            ("s3://bucket/a/b.parquet", Some("s3://bucket/a/b.parquet")),
            ("relative/path", None),
            ("/some/*.csv", None),
            ("", None),
        ] {
            let parsed = Location::parse(text).ok().map(|location| location.to_string());
            assert_eq!(parsed.as_deref(), expected, "{text}");
        }
    }
}

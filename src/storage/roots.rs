//! Where files may lie: the places that the configuration names, and nothing beyond them.
//!
//! The rule is kept where bytes are read ([`Confined`]), after all names are resolved: neither `..`
//! nor a link nor an odd URL leads out of a root, whenever it was put there.

use std::fmt::{self, Display, Formatter};
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error as StoreError, GetOptions, GetResult, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    Result as StoreResult,
};
use url::Url;

use super::{Error, Location, Result};

/// The places where files may lie. Empty: everywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roots {
    local: Vec<PathBuf>,
    /// With a slash at the end.
    remote: Vec<Url>,
}

impl Roots {
    /// From absolute directories, which must exist, and URLs.
    pub fn new(places: &[String]) -> Result<Self> {
        let mut roots = Self::default();
        for place in places {
            let url = match Url::parse(place) {
                Ok(url) if url.scheme() != "file" => Some(url),
                _ => None,
            };
            match url {
                Some(mut url) => {
                    if !url.path().ends_with('/') {
                        url.set_path(&format!("{}/", url.path()));
                    }
                    roots.remote.push(url);
                }
                None => {
                    let path = place.strip_prefix("file://").unwrap_or(place);
                    let resolved = std::fs::canonicalize(path)
                        .map_err(|source| Error::of_file(path, source.into()))?;
                    roots.local.push(resolved);
                }
            }
        }
        Ok(roots)
    }

    /// Whether files may lie anywhere.
    pub fn is_everywhere(&self) -> bool {
        self.local.is_empty() && self.remote.is_empty()
    }

    /// Refuses a location that is not below a root.
    pub fn check(&self, location: &Location) -> Result<()> {
        if self.is_everywhere() {
            return Ok(());
        }
        let outside = || Error::Outside { location: location.to_string() };
        let url = Url::parse(location.as_str()).map_err(|_| outside())?;
        let inside = match url.to_file_path() {
            Ok(path) if url.scheme() == "file" => self.holds_file(&fixed_part(&path)),
            _ => self.holds_url(&url),
        };
        if inside { Ok(()) } else { Err(outside()) }
    }

    /// Whether a path that may not exist lies below a root once all links are followed.
    fn holds_file(&self, path: &FilePath) -> bool {
        let mut existing = path;
        loop {
            match std::fs::canonicalize(existing) {
                Ok(resolved) => {
                    return self.local.iter().any(|root| resolved.starts_with(root));
                }
                Err(_) => match existing.parent() {
                    Some(parent) => existing = parent,
                    None => return false,
                },
            }
        }
    }

    /// Whether a local file, or those of a directory, may be listed.
    pub(super) fn hold(&self, place: &Path) -> bool {
        self.is_everywhere() || self.holds_file(FilePath::new(&format!("/{place}")))
    }

    fn holds_url(&self, url: &Url) -> bool {
        let decoded = percent_encoding::percent_decode_str(url.path()).decode_utf8_lossy();
        let climbs = decoded.split('/').any(|part| part == "..");
        !climbs
            && self.remote.iter().any(|root| {
                (root.scheme(), root.authority()) == (url.scheme(), url.authority())
                    && url.path().starts_with(root.path())
            })
    }

    /// A store of local files that knows no others.
    pub fn confine_local(&self) -> Arc<dyn ObjectStore> {
        let files = LocalFileSystem::new();
        match self.is_everywhere() {
            true => Arc::new(files),
            false => Arc::new(Confined { files, roots: self.clone() }),
        }
    }
}

/// A path up to its first part with a pattern.
fn fixed_part(path: &FilePath) -> PathBuf {
    let has_pattern = |part: &std::path::Component<'_>| {
        part.as_os_str().to_string_lossy().contains(['*', '?', '['])
    };
    match path.exists() {
        true => path.to_owned(),
        false => path.components().take_while(|part| !has_pattern(part)).collect(),
    }
}

/// Local files below the roots.
#[derive(Debug)]
struct Confined {
    files: LocalFileSystem,
    roots: Roots,
}

impl Confined {
    fn check(&self, location: &Path) -> StoreResult<()> {
        let path = self.files.path_to_filesystem(location)?;
        if self.roots.holds_file(&path) {
            return Ok(());
        }
        let path = path.display().to_string();
        let source = format!("{path} is outside of storage.roots").into();
        Err(StoreError::PermissionDenied { path, source })
    }

    fn check_prefix(&self, prefix: Option<&Path>) -> StoreResult<()> {
        self.check(prefix.unwrap_or(&Path::default()))
    }
}

impl Display for Confined {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.files.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Confined {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> StoreResult<PutResult> {
        self.check(location)?;
        self.files.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        self.check(location)?;
        self.files.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> StoreResult<GetResult> {
        self.check(location)?;
        self.files.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, StoreResult<Path>>,
    ) -> BoxStream<'static, StoreResult<Path>> {
        let checked = Self { files: LocalFileSystem::new(), roots: self.roots.clone() };
        let locations = locations.and_then(move |location| {
            let allowed = checked.check(&location);
            async move { allowed.map(|()| location) }
        });
        self.files.delete_stream(locations.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        if let Err(error) = self.check_prefix(prefix) {
            return futures::stream::once(async { Err(error) }).boxed();
        }
        // A link among the files may lead out although the directory does not.
        let checked = Self { files: LocalFileSystem::new(), roots: self.roots.clone() };
        let listed = self.files.list(prefix).and_then(move |object| {
            let allowed = checked.check(&object.location);
            async move { allowed.map(|()| object) }
        });
        listed.boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        self.check_prefix(prefix)?;
        let listed = self.files.list_with_delimiter(prefix).await?;
        for object in &listed.objects {
            self.check(&object.location)?;
        }
        for directory in &listed.common_prefixes {
            self.check(directory)?;
        }
        Ok(listed)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        self.check(from)?;
        self.check(to)?;
        self.files.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;

    use super::*;

    fn roots(places: &[&str]) -> Roots {
        let places: Vec<String> = places.iter().map(ToString::to_string).collect();
        Roots::new(&places).expect("valid")
    }

    #[tokio::test]
    async fn nothing_leads_out_of_a_root() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let (inside, outside) = (directory.path().join("in"), directory.path().join("out"));
        std::fs::create_dir(&inside).expect("in");
        std::fs::create_dir(&outside).expect("out");
        std::fs::write(inside.join("a.csv"), "1").expect("a");
        std::fs::write(outside.join("secret.csv"), "2").expect("secret");
        let inside = inside.display().to_string();
        let outside = outside.display().to_string();
        let roots = roots(&[&inside]);
        let allowed = |text: &str| {
            let location = Location::parse(text).expect("a location");
            roots.check(&location).is_ok()
        };
        assert!(allowed(&format!("{inside}/a.csv")));
        assert!(allowed(&format!("{inside}/")));
        assert!(!allowed(&format!("{inside}/../out/secret.csv")));
        assert!(!allowed(&format!("file://{inside}/%2e%2e/out/secret.csv")));
        assert!(!allowed(&format!("{outside}/secret.csv")));
        assert!(!allowed(&format!("{inside}-too/a.csv")));
        assert!(!allowed("s3://bucket/a/"));

        let store = roots.confine_local();
        let path = |text: String| Path::from_absolute_path(text).expect("absolute");
        assert!(store.head(&path(format!("{inside}/a.csv"))).await.is_ok());
        assert!(store.head(&path(format!("{outside}/secret.csv"))).await.is_err());
        // A link that was put there later.
        std::os::unix::fs::symlink(&outside, format!("{inside}/link")).expect("link");
        assert!(!allowed(&format!("{inside}/link/secret.csv")));
        let direct = Path::from(format!("{inside}/link/secret.csv"));
        assert!(store.head(&direct).await.is_err());
        let listed: StoreResult<Vec<_>> = store.list(Some(&path(inside))).try_collect().await;
        assert!(listed.is_err(), "{listed:?}");
    }

    #[test]
    fn urls_are_compared_part_by_part() {
        let roots = roots(&["s3://bucket/data"]);
        let holds = |text: &str| roots.holds_url(&Url::parse(text).expect("a URL"));
        assert!(holds("s3://bucket/data/x.parquet"));
        assert!(!holds("s3://bucket/database/x.parquet"));
        assert!(!holds("s3://bucket/data/../x.parquet"));
        assert!(!holds("s3://bucket/data/%2E%2E/x.parquet"));
        assert!(!holds("s3://other/data/x.parquet"));
        assert!(!holds("gs://bucket/data/x.parquet"));
    }
}

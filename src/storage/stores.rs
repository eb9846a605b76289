//! Which object store serves a URL. Stores are made on first use and kept: a client holds
//! connections.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use datafusion::error::{DataFusionError, Result};
use datafusion::execution::object_store::ObjectStoreRegistry;
use object_store::ObjectStore;
use object_store::aws::AmazonS3Builder;
use url::Url;

use super::Roots;

/// Object stores by scheme and authority. Credentials come from the environment (`AWS_*`), never
/// from SQL.
#[derive(Debug)]
pub struct Stores {
    local: Arc<dyn ObjectStore>,
    remote: RwLock<HashMap<String, Arc<dyn ObjectStore>>>,
}

impl Stores {
    /// Local files are those below the roots only.
    pub fn new(roots: &Roots) -> Self {
        Self { local: roots.confine_local(), remote: RwLock::default() }
    }
}

impl ObjectStoreRegistry for Stores {
    fn register_store(
        &self,
        url: &Url,
        store: Arc<dyn ObjectStore>,
    ) -> Option<Arc<dyn ObjectStore>> {
        let mut remote = self.remote.write().unwrap_or_else(PoisonError::into_inner);
        remote.insert(key(url), store)
    }

    fn deregister_store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        let mut remote = self.remote.write().unwrap_or_else(PoisonError::into_inner);
        remote.remove(&key(url)).ok_or_else(|| unsupported(url))
    }

    fn get_store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        if url.scheme() == "file" {
            return Ok(self.local.clone());
        }
        let key = key(url);
        let known = self.remote.read().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(store) = known {
            return Ok(store);
        }
        let store = connect(url)?;
        let mut remote = self.remote.write().unwrap_or_else(PoisonError::into_inner);
        Ok(remote.entry(key).or_insert(store).clone())
    }
}

fn key(url: &Url) -> String {
    format!("{}://{}", url.scheme(), url.authority())
}

fn connect(url: &Url) -> Result<Arc<dyn ObjectStore>> {
    let bucket = url.host_str().unwrap_or_default();
    match url.scheme() {
        "s3" | "s3a" => {
            let store = AmazonS3Builder::from_env().with_bucket_name(bucket).build()?;
            Ok(Arc::new(store))
        }
        #[cfg(feature = "gcs")]
        "gs" => {
            let builder = object_store::gcp::GoogleCloudStorageBuilder::from_env();
            Ok(Arc::new(builder.with_bucket_name(bucket).build()?))
        }
        #[cfg(feature = "azure")]
        "az" | "abfs" | "abfss" => {
            let builder = object_store::azure::MicrosoftAzureBuilder::from_env();
            Ok(Arc::new(builder.with_url(url.as_str()).build()?))
        }
        _ => Err(unsupported(url)),
    }
}

fn unsupported(url: &Url) -> DataFusionError {
    let location = url.to_string();
    let reason = format!("the scheme \"{}\" is not supported; use file or s3", url.scheme());
    DataFusionError::External(Box::new(super::Error::BadLocation { location, reason }))
}

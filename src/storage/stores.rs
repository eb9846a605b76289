//! Which object store serves a URL. Stores are made on first use and kept: a client holds
//! connections.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use datafusion::error::{DataFusionError, Result};
use datafusion::execution::object_store::ObjectStoreRegistry;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::{ClientConfigKey, ObjectStore, RetryConfig};
use url::Url;

use super::Roots;
use super::exact::Exact;
use super::failing::as_a_test_wants;
use crate::config::SCHEMES;

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
        Self { local: as_a_test_wants(roots.confine_local()), remote: RwLock::default() }
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
        let store: Arc<dyn ObjectStore> = Arc::new(Exact(connect(url)?));
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
            let builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
            check_endpoint(url, &builder)?;
            Ok(Arc::new(builder.with_retry(retries()).build()?))
        }
        #[cfg(feature = "gcs")]
        "gs" => {
            let builder = object_store::gcp::GoogleCloudStorageBuilder::from_env();
            Ok(Arc::new(builder.with_bucket_name(bucket).with_retry(retries()).build()?))
        }
        #[cfg(feature = "azure")]
        "az" | "abfs" | "abfss" => {
            let builder = object_store::azure::MicrosoftAzureBuilder::from_env();
            Ok(Arc::new(builder.with_url(url.as_str()).with_retry(retries()).build()?))
        }
        _ => Err(unsupported(url)),
    }
}

/// The store's own account of a plaintext endpoint is "builder error".
fn check_endpoint(url: &Url, builder: &AmazonS3Builder) -> Result<()> {
    let allow_http = AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp);
    let yes = |text: String| ["1", "true", "on", "yes", "y"].contains(&&*text.to_lowercase());
    let allowed = builder.get_config_value(&allow_http).is_some_and(yes);
    let endpoints = [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint];
    let endpoint = endpoints.iter().find_map(|key| builder.get_config_value(key));
    match endpoint {
        Some(endpoint) if endpoint.starts_with("http://") && !allowed => {
            let reason = "its endpoint is one without TLS; AWS_ALLOW_HTTP=true allows that";
            Err(bad(url, reason.to_owned()))
        }
        _ => Ok(()),
    }
}

/// A store that cannot be reached is said to be so within a minute, as a request may take 30 s
/// (`AWS_TIMEOUT`) of its own.
fn retries() -> RetryConfig {
    RetryConfig { retry_timeout: Duration::from_secs(30), ..RetryConfig::default() }
}

fn unsupported(url: &Url) -> DataFusionError {
    let known = SCHEMES.join(", ");
    bad(url, format!("the scheme \"{}\" is not supported; there are {known}", url.scheme()))
}

fn bad(url: &Url, reason: String) -> DataFusionError {
    let location = url.to_string();
    DataFusionError::External(Box::new(super::Error::BadLocation { location, reason }))
}

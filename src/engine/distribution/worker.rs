//! This daemon as a worker: takes parts of other daemons' statements and runs them.

use std::sync::Arc;
use std::time::Duration;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::physical_plan::FileGroup;
use datafusion::datasource::sink::DataSinkExec;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::session_state::SessionState;
use datafusion::execution::{FunctionRegistry, SessionStateBuilder, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use datafusion_distributed::{
    DistributedConfig, DistributedExt, MaybeEncoded, SetPlanRequest, TaskKey, Worker,
    WorkerPlanRewriteEvent, WorkerPlanRewriteEventResponse, WorkerQueryContext,
    WorkerSessionBuilder,
};
use futures::future::{BoxFuture, ready};
use futures::{StreamExt, stream};
use http::HeaderMap;
use tokio_util::sync::CancellationToken;
use url::Url;
use uuid::Uuid;

use super::channels::Channels;
use super::codec::{Codec, arrived, scan_of};
use super::guests::{Guest, Guests};
use super::part::as_part;
use super::travel::{self, Travel};
use crate::engine::dense::dense;
use crate::shutdown::{Gate, GateGuard};
use crate::storage::{self, Location, PageCache};

/// Makes the session in which a part of a statement runs: as that of its coordinator, as far as it
/// matters for the part.
#[derive(Clone)]
pub(super) struct Sessions {
    pub template: Arc<SessionState>,
    pub channels: Channels,
    pub build: &'static str,
    /// Keeps the daemon from ending under the part.
    pub gate: Gate,
    /// Where files may lie.
    pub roots: storage::Roots,
    pub guests: Arc<Guests>,
}

/// What the gate calls a part.
const PART: &str = "part of a statement";

/// Pause between two looks for parts that have ended: the table lets go of nothing sooner.
const SWEEP: Duration = Duration::from_millis(350);

/// Held as long as anybody holds the part.
struct Inside(#[expect(dead_code, reason = "held, not read")] (GateGuard, Option<Guest>));

impl WorkerSessionBuilder for Sessions {
    fn build_session_state<'a, 'b>(
        &'a self,
        context: WorkerQueryContext,
    ) -> BoxFuture<'b, Result<SessionState>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(ready(self.session(context)))
    }
}

impl Sessions {
    fn session(&self, context: WorkerQueryContext) -> Result<SessionState> {
        let WorkerQueryContext { mut builder, headers } = context;
        let travel = self.admit(&headers)?;
        let (guest, environment) = self.guests.admit(&travel)?;
        let (is_own, query) = (guest.is_none(), travel.query);
        let observation = self.guests.observation(&travel);
        let mut config = builder.config().take().unwrap_or_default();
        let distributed = DistributedConfig::from_config_options(config.options())?.clone();
        let mut options = self.template.config().options().as_ref().clone();
        travel.apply(&mut options)?;
        options.extensions.insert(distributed);
        *config.options_mut() = options;
        config.set_extension(Arc::new(Inside((self.gate.enter_again(PART), guest))));
        config.set_distributed_channel_resolver(self.channels.clone());
        config.set_distributed_user_codec(Codec);

        let state = SessionStateBuilder::new_from_existing(self.template.as_ref().clone());
        let mut state = state.with_runtime_env(environment).build();
        let options = config.options().as_ref();
        let changed: Vec<_> = (state.scalar_functions().values())
            .filter_map(|function| function.inner().with_updated_config(options))
            .collect();
        for function in changed {
            state.register_udf(Arc::new(function))?;
        }

        if let Some(pages) = self.template.config().get_extension::<PageCache>() {
            config.set_extension(pages);
        }
        *state.config_mut() = config.clone();
        let scans = TaskContext::default()
            .with_session_config(config.clone())
            .with_runtime(state.runtime_env().clone());
        let own = is_own.then(|| state.task_ctx());
        let roots = self.roots.clone();
        config.set_distributed_worker_plan_rewrite_handler(
            move |event: WorkerPlanRewriteEvent<'_>| {
                check(&event.plan, &roots)?;
                let plan = match &own {
                    // It may not be written yet for all others: what this part finds out while it
                    // runs, such as a join's bounds, must not get into what they are sent.
                    Some(context) => arrived(&event.plan, context)?,
                    None => event.plan,
                };
                let plan = dense(storage::ready_scans(plan, &scans)?)?;
                let plan = as_part(plan, observation.as_ref(), query)?;
                Ok(WorkerPlanRewriteEventResponse::new(plan))
            },
        );
        *state.config_mut() = config;
        Ok(state)
    }

    /// Only daemons of the same build understand each other's plans.
    fn admit(&self, headers: &HeaderMap) -> Result<Travel> {
        let build = headers.get(travel::BUILD).and_then(|value| value.to_str().ok());
        if build != Some(self.build) {
            let own = self.build;
            let other = build.unwrap_or("unknown");
            // Not an error of the statement's: it can run elsewhere.
            return Err(DataFusionError::External(
                format!("this daemon is of build {own}, the one that asks of build {other}").into(),
            ));
        }
        Travel::read(headers)
    }
}

/// Has the table of parts forget those that have ended, until `end`.
///
/// It forgets a part when the part's statement is over, but lets go of what it has forgotten, the
/// plan with its rows and all that runs below it, only when it is used for something else, a while
/// later. A daemon that nobody asks for anything would keep it for ever. So it is used, by a part that
/// no daemon sends.
pub(super) async fn sweep(worker: Worker, gate: Gate, end: CancellationToken) {
    loop {
        tokio::select! {
            () = end.cancelled() => return,
            () = tokio::time::sleep(SWEEP) => {}
        }
        if !gate.inside().contains_key(PART) {
            continue;
        }
        let Ok(target_worker_url) = Url::parse("https://nobody") else { return };
        let nobodys = SetPlanRequest {
            task_key: TaskKey { query_id: Uuid::nil(), stage_id: 0, task_number: 0 },
            task_count: 0,
            plan: MaybeEncoded::Encoded(Vec::new()),
            work_unit_feed_declarations: Vec::new(),
            target_worker_url,
            query_start_time_ns: 0,
        };
        // Refused, since it comes without a build.
        let _ =
            worker.coordinator_channel(HeaderMap::new(), nobodys, stream::empty().boxed()).await;
    }
}

/// Only what reads may come from elsewhere, and only what lies where files may lie.
fn check(plan: &Arc<dyn ExecutionPlan>, roots: &storage::Roots) -> Result<()> {
    plan.apply(|node| {
        if node.is::<DataSinkExec>() {
            return Err(refused("a part of a statement writes".to_owned()));
        }
        let Some(scan) = scan_of(node.as_ref()).filter(|_| !roots.is_everywhere()) else {
            return Ok(TreeNodeRecursion::Continue);
        };
        // Ends with a slash.
        let base = scan.object_store_url.as_str();
        for file in scan.file_groups.iter().flat_map(FileGroup::iter) {
            let url = format!("{base}{}", file.object_meta.location);
            let outside = |error: storage::Error| refused(error.to_string());
            roots.check(&Location::parse(&url).map_err(outside)?).map_err(outside)?;
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}

fn refused(reason: String) -> DataFusionError {
    // Not an error of the statement's: it can run elsewhere.
    DataFusionError::External(format!("refused from another daemon: {reason}").into())
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use datafusion::catalog::memory::DataSourceExec;
    use datafusion::datasource::physical_plan::{FileScanConfigBuilder, ParquetSource};
    use datafusion::execution::SessionStateBuilder;
    use datafusion::execution::object_store::ObjectStoreUrl;
    use datafusion::physical_plan::empty::EmptyExec;
    use datafusion_datasource::PartitionedFile;

    use super::*;

    fn scan(store: &str, path: &str) -> Arc<dyn ExecutionPlan> {
        let url = ObjectStoreUrl::parse(store).expect("a store");
        let schema = Arc::new(arrow::datatypes::Schema::empty());
        let source = Arc::new(ParquetSource::new(schema));
        let config = FileScanConfigBuilder::new(url, source)
            .with_file(PartitionedFile::new(path, 1))
            .build();
        DataSourceExec::from_data_source(config)
    }

    #[tokio::test]
    async fn those_of_another_build_are_refused() {
        let key = crate::tls::new_cluster_key().expect("a key");
        let peering = crate::tls::Peering::of_cluster(&key).expect("certificates");
        let template = SessionStateBuilder::new().build();
        let settings = crate::config::Config::load(None, [], []).expect("defaults").distribution;
        let sessions = Sessions {
            guests: Guests::new(settings, template.runtime_env().clone(), None),
            template: Arc::new(template),
            channels: Channels::new(peering, tokio::runtime::Handle::current()),
            build: "same",
            gate: Gate::default(),
            roots: storage::Roots::default(),
        };
        let headers = |build| Travel::default().headers(build).expect("headers");
        sessions.admit(&headers("same")).expect("of the same build");
        for headers in [headers("other"), HeaderMap::new()] {
            let error = sessions.admit(&headers).expect_err("of another build");
            assert!(error.to_string().contains("build"), "{error}");
        }
    }

    #[test]
    fn parts_read_where_files_may_lie_only() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = std::fs::canonicalize(directory.path()).expect("it is there");
        let root = root.display().to_string();
        let roots = storage::Roots::new(&[root.clone(), "s3://herd/tables".to_owned()]);
        let roots = roots.expect("roots");
        for (store, path, good) in [
            ("file://", format!("{root}/a.parquet"), true),
            ("file://", "/etc/passwd".to_owned(), false),
            ("s3://herd", "tables/a.parquet".to_owned(), true),
            ("s3://herd", "secrets/a.parquet".to_owned(), false),
            ("s3://other", "tables/a.parquet".to_owned(), false),
        ] {
            let plan = scan(store, path.trim_start_matches('/'));
            assert_eq!(check(&plan, &roots).is_ok(), good, "{store} {path}");
            check(&plan, &storage::Roots::default()).expect("everywhere");
        }
    }

    #[test]
    fn parts_that_write_are_refused() {
        #[derive(Debug)]
        struct Sink(arrow::datatypes::SchemaRef);
        impl datafusion::physical_plan::DisplayAs for Sink {
            fn fmt_as(
                &self,
                _: datafusion::physical_plan::DisplayFormatType,
                _: &mut std::fmt::Formatter<'_>,
            ) -> std::fmt::Result {
                Ok(())
            }
        }
        #[async_trait]
        impl datafusion::datasource::sink::DataSink for Sink {
            fn schema(&self) -> &arrow::datatypes::SchemaRef {
                &self.0
            }
            async fn write_all(
                &self,
                _: datafusion::execution::SendableRecordBatchStream,
                _: &Arc<datafusion::execution::TaskContext>,
            ) -> Result<u64> {
                Ok(0)
            }
        }
        let schema = Arc::new(arrow::datatypes::Schema::empty());
        let rows = Arc::new(EmptyExec::new(schema.clone()));
        check(&(rows.clone() as _), &storage::Roots::default()).expect("it only reads");
        let plan: Arc<dyn ExecutionPlan> =
            Arc::new(DataSinkExec::new(rows, Arc::new(Sink(schema)), None));
        let error = check(&plan, &storage::Roots::default()).expect_err("it writes");
        assert!(error.to_string().contains("writes"), "{error}");
    }
}

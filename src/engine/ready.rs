//! Plans for one execution, on this daemon or on several.

use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::common::display::{PlanType, StringifiedPlan};
use datafusion::common::format::ExplainFormat;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::execution::TaskContext;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::analyze::AnalyzeExec;
use datafusion::physical_plan::explain::ExplainExec;
use tokio_util::sync::CancellationToken;

use super::cooperation::make_fair;
use super::dense::dense;
use super::distribution::{Again, Distribution, own_part};
use super::explain::{analyse_discreetly, explain};
use super::look_up::LookUp;
use super::observe::{Observation, Watch};
use super::result_cache::{Keep, Lookup, ResultCache};
use super::rows::are_few;
use super::settings::Settings;
use super::shared::share;
use super::{Error, Result};
use crate::storage;

/// A plan for one execution.
#[derive(Debug)]
pub struct Ready {
    pub(super) plan: Arc<dyn ExecutionPlan>,
    pub(super) context: Arc<TaskContext>,
    /// Ends what cannot pause.
    pub(super) stop: CancellationToken,
    /// See [`Plan::returned`](super::Plan::returned).
    pub(super) returned: Option<usize>,
    /// Of a plan that runs on several daemons.
    pub(super) again: Option<Box<Again>>,
    pub(super) observation: Option<Arc<Observation>>,
    /// Where the result goes besides.
    pub(super) keep: Option<Box<Keep>>,
    /// The plan's rows, if they are known.
    pub(super) given: Option<Given>,
}

/// Rows that are known before a plan runs.
pub(super) type Given = Arc<[RecordBatch]>;

impl Ready {
    /// Observes its run, until the guard is dropped.
    pub(super) fn watch(&self) -> Option<Watch> {
        self.observation.as_ref().map(|observation| observation.watch(&self.plan))
    }
}

/// How a statement comes to its plan.
#[derive(Clone, Debug)]
pub(super) struct Course {
    /// The plan that is given is optimised already.
    pub optimised: bool,
    pub state: Arc<SessionState>,
    pub context: Arc<TaskContext>,
    pub settings: Arc<Settings>,
    /// Whether EXPLAIN shows everything.
    pub details: bool,
    /// Whether the rows are taken in portions: whoever takes them may have enough before the plan ends.
    pub portions: bool,
    pub distribution: Option<Arc<Distribution>>,
    pub observation: Option<Arc<Observation>>,
    pub results: Arc<ResultCache>,
}

impl Course {
    /// A plan that runs here.
    pub async fn here(
        &self,
        logical: &LogicalPlan,
        returned: Option<usize>,
        stop: CancellationToken,
    ) -> Result<Ready> {
        let physical = self.physical(logical).await?;
        self.run_here(physical, returned, stop)
    }

    /// A plan that gives what is known already, or one that runs on several daemons if that is worth
    /// it. When a worker is lost under it, it may run again `left` times.
    pub async fn anywhere(
        self,
        logical: LogicalPlan,
        returned: Option<usize>,
        left: Option<u32>,
        stop: CancellationToken,
    ) -> Result<Ready> {
        if !self.settings.result_cache() {
            return self.planned(logical, returned, left, stop).await;
        }
        match self.results.look(&self.state, &self.settings, &logical).await {
            Lookup::Known(plan, rows) => {
                let (context, observation) = (self.context, self.observation);
                let (again, keep, given) = (None, None, Some(rows));
                Ok(Ready { plan, context, stop, returned, again, observation, keep, given })
            }
            Lookup::New(keep, pinned) => {
                let ready = self.planned(pinned, returned, left, stop).await?;
                Ok(Ready { keep: Some(keep), ..ready })
            }
            Lookup::Passing => self.planned(logical, returned, left, stop).await,
        }
    }

    /// Rows that a look-up has found.
    pub fn given(
        self,
        rows: RecordBatch,
        look_up: &LookUp,
        returned: Option<usize>,
        stop: CancellationToken,
    ) -> Result<Ready> {
        let (context, observation) = (self.context, self.observation);
        let rows: Given = Arc::from([rows]);
        let plan = match are_few(&rows) {
            true => look_up.no_plan.clone(),
            false => {
                let schema = rows[0].schema();
                let plan = MemorySourceConfig::try_new_exec(&[rows.to_vec()], schema, None);
                plan.map_err(Error::planning)?
            }
        };
        let (again, keep, given) = (None, None, Some(rows));
        Ok(Ready { plan, context, stop, returned, again, observation, keep, given })
    }

    async fn planned(
        self,
        logical: LogicalPlan,
        returned: Option<usize>,
        left: Option<u32>,
        stop: CancellationToken,
    ) -> Result<Ready> {
        let local = self.physical(&logical).await?;
        let Some(distribution) = self.distribution.clone() else {
            return self.run_here(local, returned, stop);
        };
        if let LogicalPlan::Explain(explain) = &logical
            && let Some(shown) = local.downcast_ref::<ExplainExec>()
            && distribution.may_spread(&self)
        {
            let inner = self.physical(&explain.plan).await?;
            let spread = distribution.spread(&self, &explain.plan, &inner).await?;
            let plan = match spread {
                Some(spread) => with_physical(shown, |text| match self.details {
                    true => distribution.explain(&spread),
                    false => format!("{}\n{text}", spread.heading()),
                }),
                None => local,
            };
            return self.run_here(plan, returned, stop);
        }
        if local.is::<AnalyzeExec>() && !self.details {
            return self.run_here(local, returned, stop);
        }
        let spread = distribution.spread(&self, &logical, &local).await?;
        let Some(spread) = spread else { return self.run_here(local, returned, stop) };
        let observation = self.observation.clone();
        if let Some(observation) = &observation {
            distribution.note(&spread, observation);
        }
        let plan = own_part(spread.plan, &spread.context, &stop).map_err(Error::planning)?;
        let again = Again {
            left: left.unwrap_or(distribution.retries()),
            spool: distribution.spool(),
            distribution,
            course: self,
            logical,
            returned,
            workers: spread.workers,
            stop: stop.clone(),
        };
        let (context, again) = (spread.context, Some(Box::new(again)));
        let (keep, given) = (None, None);
        Ok(Ready { plan, context, stop, returned, again, observation, keep, given })
    }

    async fn physical(&self, logical: &LogicalPlan) -> Result<Arc<dyn ExecutionPlan>> {
        let plan = match logical {
            LogicalPlan::Explain(plan)
                if !plan.verbose && plan.explain_format == ExplainFormat::Indent =>
            {
                explain(&self.state, plan, self.details).await
            }
            logical if self.optimised => {
                self.state.query_planner().create_physical_plan(logical, self.state.as_ref()).await
            }
            logical => self.state.create_physical_plan(logical).await,
        };
        plan.map_err(Error::planning)
    }

    fn run_here(
        &self,
        physical: Arc<dyn ExecutionPlan>,
        returned: Option<usize>,
        stop: CancellationToken,
    ) -> Result<Ready> {
        let threads = self.context.session_config().target_partitions();
        let ready = make_fair(physical, threads, &stop)
            .and_then(|plan| match self.portions {
                true => storage::ready_in_portions(plan, &self.context),
                false => storage::ready_scans(plan, &self.context),
            })
            .and_then(dense);
        let plan = ready.and_then(|plan| match self.details {
            true => Ok(plan),
            false => analyse_discreetly(plan),
        });
        let plan = plan.map_err(Error::planning)?;
        share(&plan);
        let (context, observation) = (self.context.clone(), self.observation.clone());
        let (again, keep, given) = (None, None, None);
        Ok(Ready { plan, context, stop, returned, again, observation, keep, given })
    }
}

/// What EXPLAIN shows, with another text for the plan that runs.
fn with_physical(shown: &ExplainExec, text: impl Fn(&str) -> String) -> Arc<dyn ExecutionPlan> {
    let plans = shown.stringified_plans().iter().map(|plan| match plan.plan_type {
        PlanType::FinalPhysicalPlan => {
            StringifiedPlan::new(PlanType::FinalPhysicalPlan, text(plan.plan.as_str()))
        }
        _ => plan.clone(),
    });
    Arc::new(ExplainExec::new(shown.schema(), plans.collect(), shown.verbose()))
}

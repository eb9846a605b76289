//! The tasks that a plan starts belong to the statement of whoever started them: what they log says
//! which that is.

use std::any::Any;

use datafusion::common::runtime::{JoinSetTracer, set_join_set_tracer};
use futures::FutureExt;
use futures::future::BoxFuture;
use tracing::{Instrument, Span};

struct Tasks;

/// Has the tasks of plans run within the spans of those that start them, from now on.
pub(super) fn follow_tasks() {
    // Another engine of this process has done so already.
    let _ = set_join_set_tracer(&Tasks);
}

type Outcome = Box<dyn Any + Send>;

impl JoinSetTracer for Tasks {
    fn trace_future(&self, task: BoxFuture<'static, Outcome>) -> BoxFuture<'static, Outcome> {
        let span = Span::current();
        match span.is_disabled() {
            true => task,
            false => task.instrument(span).boxed(),
        }
    }

    fn trace_block(
        &self,
        block: Box<dyn FnOnce() -> Outcome + Send>,
    ) -> Box<dyn FnOnce() -> Outcome + Send> {
        let span = Span::current();
        match span.is_disabled() {
            true => block,
            false => Box::new(move || span.in_scope(block)),
        }
    }
}

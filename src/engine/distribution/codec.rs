//! Steps of a plan that are this engine's own, on their way to another daemon.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::ExecutionPlan;
use datafusion_distributed::DistributedCodec;
use datafusion_proto::bytes::{
    physical_plan_from_bytes_with_proto_converter, physical_plan_to_bytes_with_proto_converter,
};
use datafusion_proto::physical_plan::{
    DeduplicatingProtoConverter, PhysicalExtensionCodec, PhysicalProtoConverterExtension,
};

use crate::engine::through::{Said, Through};
use crate::storage::managed::{finds_by_field_id, with_field_ids};

/// Writes and reads [`Through`].
#[derive(Debug)]
pub(super) struct Codec;

impl PhysicalExtensionCodec for Codec {
    fn try_decode(
        &self,
        bytes: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        _: &TaskContext,
        _: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let [rows] = inputs else { return Err(unknown("a step that has not one input")) };
        let (said, rows) = match bytes {
            b"barrier" => (Said::SecurityBarrier, rows.clone()),
            b"field-ids" => (Said::FieldIds, with_field_ids(rows.clone())?),
            _ => return Err(unknown("an unknown step")),
        };
        Ok(Through::new(said, rows))
    }

    fn try_encode(
        &self,
        node: Arc<dyn ExecutionPlan>,
        bytes: &mut Vec<u8>,
        _: &dyn PhysicalProtoConverterExtension,
    ) -> Result<()> {
        let Some(through) = node.downcast_ref::<Through>() else {
            return Err(unknown(node.name()));
        };
        bytes.extend_from_slice(match through.said {
            Said::SecurityBarrier => b"barrier",
            Said::FieldIds => b"field-ids",
        });
        Ok(())
    }
}

/// A plan as it arrives on another daemon: written down and read again. It has nothing in common with
/// the one that was sent.
pub(super) fn arrived(
    plan: &Arc<dyn ExecutionPlan>,
    context: &TaskContext,
) -> Result<Arc<dyn ExecutionPlan>> {
    let codec = DistributedCodec::new_combined_with_user(context.session_config());
    // What steps have in common, such as a join and the scan that its bounds go to, they have in common
    // there as well.
    let sends = DeduplicatingProtoConverter::default();
    let bytes = physical_plan_to_bytes_with_proto_converter(plan.clone(), &codec, &sends)?;
    let reads = DeduplicatingProtoConverter::default();
    physical_plan_from_bytes_with_proto_converter(&bytes, context, &codec, &reads)
}

/// Says above each scan that finds columns by field id that it does: the scan itself would forget it
/// on the way.
pub(super) fn mark_field_ids(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let marked = plan.transform_up(|node| {
        let by_field_id = scan_of(node.as_ref()).is_some_and(finds_by_field_id);
        Ok(match by_field_id {
            true => Transformed::yes(Through::new(Said::FieldIds, node) as _),
            false => Transformed::no(node),
        })
    })?;
    Ok(marked.data)
}

/// A step that reads files.
pub(in crate::engine) fn scan_of(node: &dyn ExecutionPlan) -> Option<&FileScanConfig> {
    node.downcast_ref::<DataSourceExec>()?.data_source().downcast_ref::<FileScanConfig>()
}

fn unknown(what: &str) -> DataFusionError {
    DataFusionError::NotImplemented(format!("{what} in a plan from another daemon"))
}

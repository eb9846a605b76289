//! The columns of Parquet files, as the engine makes them of metadata.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::datatypes::{Field, Schema, SchemaRef, TimeUnit};
use datafusion::common::config::ParquetOptions;
use datafusion::datasource::physical_plan::parquet::{
    Int96Coercer, transform_binary_to_string, transform_schema_to_view,
};
use datafusion::error::{DataFusionError, Result};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectMeta;
use parquet::arrow::parquet_to_arrow_schema;

use super::Footers;
use crate::storage::Error;

/// The columns of all these files, which must agree; as many files are read at a time. The engine's own
/// function, but for the metadata that it is made of.
pub async fn schema(
    footers: &Footers,
    options: &ParquetOptions,
    files: &[ObjectMeta],
    concurrency: usize,
) -> Result<SchemaRef> {
    let mut schemas: Vec<_> = stream::iter(files.to_vec())
        .map(|file| async move {
            let schema = schema_of(footers, options, &file).await?;
            Ok::<_, DataFusionError>((file.location, schema))
        })
        .boxed()
        .buffer_unordered(concurrency)
        .try_collect()
        .await?;
    // Their order is that in which the columns come.
    schemas.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    let mut schema = Schema::try_merge(schemas.into_iter().map(|(_, schema)| schema))?;
    if options.binary_as_string {
        schema = transform_binary_to_string(&schema);
    }
    if options.schema_force_view_types {
        schema = transform_schema_to_view(&schema);
    }
    Ok(Arc::new(schema))
}

async fn schema_of(
    footers: &Footers,
    options: &ParquetOptions,
    file: &ObjectMeta,
) -> Result<Schema> {
    let metadata = footers.read(file).await.map_err(DataFusionError::from)?;
    let metadata = metadata.file_metadata();
    let columns = metadata.schema_descr();
    let mut schema = parquet_to_arrow_schema(columns, metadata.key_value_metadata())?;
    // Only one of them would be seen.
    let mut seen = HashSet::new();
    if let Some(twice) = schema.fields().iter().find(|field| !seen.insert(field.name())) {
        let reason = format!("column \"{}\" is there twice", twice.name());
        let location = file.location.to_string();
        return Err(DataFusionError::External(Box::new(Error::BadDefinition { location, reason })));
    }
    if let Some(unit) = &options.coerce_int96 {
        let unit = unit_of(unit)?;
        let zone = options.coerce_int96_tz.as_deref();
        zone.map(str::parse::<Tz>).transpose().map_err(DataFusionError::from)?;
        let coercer = Int96Coercer::new(columns, &schema, &unit);
        let coercer = coercer.with_timezone(zone.map(Arc::from));
        if let Some(coerced) = coercer.coerce() {
            schema = coerced;
        }
    }
    if options.skip_metadata {
        let plain = |field: &Arc<Field>| field.as_ref().clone().with_metadata(Default::default());
        schema = Schema::new(schema.fields().iter().map(plain).collect::<Vec<_>>());
    }
    Ok(schema)
}

fn unit_of(text: &str) -> Result<TimeUnit> {
    match text.to_lowercase().as_str() {
        "ns" => Ok(TimeUnit::Nanosecond),
        "us" => Ok(TimeUnit::Microsecond),
        "ms" => Ok(TimeUnit::Millisecond),
        "s" => Ok(TimeUnit::Second),
        _ => Err(DataFusionError::Configuration(format!(
            "coerce_int96 {text:?} is none of ns, us, ms and s"
        ))),
    }
}

//! Words that stand for moments: `'today'` and `'now'`, as dates and timestamps. Their value is that of the
//! statement's own time, so that they are not read as other constants are.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::common::{Result, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::functions::datetime::now::NowFunc;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, binary_expr, cast, lit,
};

use crate::values::encode::TimeZone;

const LOCAL: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

/// The rule.
#[derive(Debug)]
pub(super) struct Words {
    now: Arc<ScalarUDF>,
}

impl Default for Words {
    fn default() -> Self {
        let mut options = ConfigOptions::default();
        options.execution.time_zone = Some("+00:00".to_owned());
        Self { now: Arc::new(ScalarUDF::new_from_impl(Now::new(&options))) }
    }
}

impl Words {
    /// The day that the session's clocks show.
    pub(super) fn today(&self, session: &TimeZone, at_time_zone: &Arc<ScalarUDF>) -> Expr {
        let zone = Expr::Literal(ScalarValue::from(session.name()), None);
        cast(at_time_zone.call(vec![zone, self.now.call(Vec::new())]), DataType::Date32)
    }

    /// A cast of such a word to a type of moments; `None` for any other cast.
    pub(super) fn moment(
        &self,
        expr: &Expr,
        field: &FieldRef,
        session: &TimeZone,
        at_time_zone: &Arc<ScalarUDF>,
    ) -> Option<Expr> {
        use DataType as D;
        let kind = field.data_type();
        if !matches!(kind, D::Date32 | D::Date64 | D::Timestamp(..) | D::Time64(_) | D::Time32(_)) {
            return None;
        }
        let Expr::Literal(constant, _) = expr else { return None };
        let word = constant.try_as_str()??.trim().to_ascii_lowercase();
        let days = match word.as_str() {
            "now" => None,
            "today" => Some(0),
            "tomorrow" => Some(1),
            "yesterday" => Some(-1),
            _ => return None,
        };
        let now = self.now.call(Vec::new());
        let zone = || Expr::Literal(ScalarValue::from(session.name()), None);
        let local = |moment| at_time_zone.call(vec![zone(), moment]);
        let clock = local(now.clone());
        let Some(days) = days else {
            return Some(match kind {
                D::Timestamp(_, Some(_)) => cast(now, kind.clone()),
                other => cast(clock, other.clone()),
            });
        };
        let today = cast(cast(clock, D::Date32), D::Int32);
        let date = cast(binary_expr(today, Operator::Plus, lit(days)), D::Date32);
        Some(match kind {
            D::Date32 => date,
            D::Timestamp(_, Some(_)) => cast(local(cast(date, LOCAL)), kind.clone()),
            // A time has no day.
            D::Time32(_) | D::Time64(_) => return None,
            other => cast(date, other.clone()),
        })
    }
}

/// `now()` to the microsecond, as all moments are here: what is cast of it is the same moment.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Now {
    engine: NowFunc,
    zone: Option<Arc<str>>,
}

impl Now {
    pub(super) fn new(options: &ConfigOptions) -> Self {
        let zone = options.execution.time_zone.as_deref().map(Arc::from);
        Self { engine: NowFunc::new_with_config(options), zone }
    }
}

impl ScalarUDFImpl for Now {
    fn name(&self) -> &str {
        self.engine.name()
    }

    fn aliases(&self) -> &[String] {
        self.engine.aliases()
    }

    fn signature(&self) -> &Signature {
        self.engine.signature()
    }

    fn with_updated_config(&self, options: &ConfigOptions) -> Option<ScalarUDF> {
        Some(Self::new(options).into())
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Timestamp(TimeUnit::Microsecond, self.zone.clone()))
    }

    fn return_field_from_args(&self, _: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(self.name(), self.return_type(&[])?, false)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.engine.invoke_with_args(args)
    }

    fn simplify(&self, args: Vec<Expr>, context: &SimplifyContext) -> Result<ExprSimplifyResult> {
        Ok(match self.engine.simplify(args, context)? {
            ExprSimplifyResult::Simplified(Expr::Literal(
                ScalarValue::TimestampNanosecond(Some(nanos), zone),
                metadata,
            )) => {
                let micros = ScalarValue::TimestampMicrosecond(Some(nanos.div_euclid(1000)), zone);
                ExprSimplifyResult::Simplified(Expr::Literal(micros, metadata))
            }
            other => other,
        })
    }
}

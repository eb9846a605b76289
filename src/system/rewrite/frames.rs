//! How far a window's frame reaches: the engine takes an interval for it as a literal alone, and not as the
//! cast that it is elsewhere.

use sqlparser::ast::{
    DataType, Expr, Interval, NamedWindowExpr, Select, WindowFrame, WindowFrameBound, WindowSpec,
    WindowType,
};

use super::build::{as_text, take};

/// The frame of a call's own window.
pub fn of_call(expr: &mut Expr) {
    if let Expr::Function(function) = expr
        && let Some(WindowType::WindowSpec(window)) = &mut function.over
    {
        of_window(window);
    }
}

/// The frames of the windows that a SELECT names.
pub fn named(select: &mut Select) {
    for window in &mut select.named_window {
        if let NamedWindowExpr::WindowSpec(window) = &mut window.1 {
            of_window(window);
        }
    }
}

fn of_window(window: &mut WindowSpec) {
    let Some(WindowFrame { start_bound, end_bound, .. }) = &mut window.window_frame else { return };
    for bound in std::iter::once(start_bound).chain(end_bound) {
        if let WindowFrameBound::Preceding(Some(reach)) | WindowFrameBound::Following(Some(reach)) =
            bound
        {
            literal(reach);
        }
    }
}

fn literal(reach: &mut Expr) {
    let Expr::Cast {
        expr, data_type: DataType::Interval { fields: None, precision: None }, ..
    } = reach
    else {
        return;
    };
    if as_text(expr).is_some() {
        *reach = Expr::Interval(Interval {
            value: Box::new(take(expr)),
            leading_field: None,
            leading_precision: None,
            last_field: None,
            fractional_seconds_precision: None,
        });
    }
}

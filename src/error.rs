//! The classification of failures that every room shares. Each room has its own `Error`; only the
//! top floor turns one into an SQLSTATE or an HTTP status.

/// What kind of failure it was, hence who should do what about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The request was wrong: the user mends it.
    User,
    /// The user, a time-out or a shutdown ended it.
    Cancelled,
    /// No room at the moment: try again later or ask for less.
    Overloaded,
    /// A conflict or an outage that is expected to pass: the same request may succeed.
    Retryable,
    /// A defect or a broken environment: the operator looks at the log.
    Internal,
}

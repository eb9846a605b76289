//! Where the line of a short statement is made: each thread has what that takes at hand.

use std::cell::RefCell;

use super::Record;
use super::batch::append;
use super::facts::Told;

/// Bytes of a line that is made here. As many stay at hand of a record and its line, and at most sixteen times
/// as many of settings.
const LONGEST: usize = 16 << 10;

thread_local! {
    static DESK: RefCell<Desk> = RefCell::default();
}

#[derive(Debug, Default)]
struct Desk {
    told: Told,
    record: Record,
    line: Vec<u8>,
}

/// Has a record written, and its line put away. False if either says so, or if the line is long.
pub(super) fn line(
    write: impl FnOnce(&mut Told, &mut Record) -> bool,
    put: impl FnOnce(&[u8]) -> bool,
) -> bool {
    let made = |desk: &RefCell<Desk>| {
        let Ok(mut desk) = desk.try_borrow_mut() else { return false };
        let Desk { told, record, line } = &mut *desk;
        if !write(told, record) {
            return false;
        }
        line.clear();
        append(line, record);
        if line.len() > LONGEST {
            *desk = Desk::default();
            return false;
        }
        put(line)
    };
    // A thread that ends has none any more.
    DESK.try_with(made).unwrap_or(false)
}

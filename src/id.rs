//! Identifiers that are unique in the cluster without asking anybody.

use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

use uuid::{Builder, Uuid};

/// A new statement's id. Version 7 with microseconds behind the milliseconds (RFC 9562, 6.2, method 3), so ids
/// sort by the time they were made.
pub fn statement() -> Uuid {
    // A clock before 1970 is wrong anyway.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let fraction = (now.subsec_nanos() % 1_000_000 * 4096 / 1_000_000) as u16;
    let mut bytes = random();
    bytes[..2].copy_from_slice(&fraction.to_be_bytes());
    Builder::from_unix_timestamp_millis(now.as_millis() as u64, &bytes).into_uuid()
}

/// A new incarnation of a daemon: one for each session with the coordination store.
pub fn incarnation() -> Uuid {
    Uuid::new_v4()
}

/// A mark by which a writer recognises its own write after the reply was lost.
pub fn nonce() -> Uuid {
    Uuid::new_v4()
}

/// Random bytes, of which a thread has a few in stock: each statement takes some, and to ask the kernel is a system
/// call.
fn random() -> [u8; 10] {
    const STOCK: usize = 500;
    thread_local! {
        static BYTES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    BYTES.with_borrow_mut(|stock| {
        if stock.is_empty() {
            stock.resize(STOCK, 0);
            getrandom::getrandom(stock).expect("the kernel has random bytes");
        }
        let mut taken = [0; 10];
        let rest = stock.len() - taken.len();
        taken.copy_from_slice(&stock[rest..]);
        stock.truncate(rest);
        taken
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_of_statements_differ_and_tell_when_they_were_made() {
        let before = SystemTime::now();
        let ids: Vec<Uuid> = (0..1000).map(|_| statement()).collect();
        let after = SystemTime::now();
        let random = |id: &Uuid| id.as_u128() as u64;
        assert_eq!(ids.iter().map(random).collect::<BTreeSet<_>>().len(), ids.len());
        let millis =
            |time: SystemTime| time.duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
        for id in &ids {
            assert_eq!(id.get_version_num(), 7);
            assert_eq!(id.get_variant(), uuid::Variant::RFC4122);
            assert!((millis(before)..=millis(after)).contains(&(id.as_u128() >> 80)));
        }
        // The version, and what is behind the milliseconds, as well.
        let time = |id: &Uuid| id.as_u128() >> 64;
        assert!(ids.iter().map(time).is_sorted());
    }
}

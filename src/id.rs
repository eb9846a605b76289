//! Identifiers that are unique in the cluster without asking anybody.

use std::cell::RefCell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use uuid::{Builder, Uuid};

/// A new statement's id. Version 7 with microseconds behind the milliseconds (RFC 9562, 6.2, method 3), so ids
/// sort by the time they were made.
pub fn statement() -> Uuid {
    // A clock before 1970 is wrong anyway.
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    random().map_or_else(Uuid::now_v7, |bytes| made_at(since_1970, bytes))
}

fn made_at(since_1970: Duration, mut bytes: [u8; 10]) -> Uuid {
    let fraction = (since_1970.subsec_nanos() % 1_000_000 * 4096 / 1_000_000) as u16;
    bytes[..2].copy_from_slice(&fraction.to_be_bytes());
    Builder::from_unix_timestamp_millis(since_1970.as_millis() as u64, &bytes).into_uuid()
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
/// call. `None` if it has none to give.
fn random() -> Option<[u8; 10]> {
    const STOCK: usize = 500;
    thread_local! {
        static BYTES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    BYTES.with_borrow_mut(|stock| {
        if stock.is_empty() {
            let mut fresh = vec![0; STOCK];
            getrandom::getrandom(&mut fresh).ok()?;
            *stock = fresh;
        }
        let (rest, taken) = stock.split_last_chunk()?;
        let (rest, taken) = (rest.len(), *taken);
        stock.truncate(rest);
        Some(taken)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_of_statements_differ() {
        let ids: BTreeSet<Uuid> = (0..1000).map(|_| statement()).collect();
        let random: BTreeSet<u64> = ids.iter().map(|id| id.as_u128() as u64).collect();
        assert_eq!(random.len(), 1000);
        assert!(ids.iter().all(|id| id.get_version_num() == 7));
        assert!(ids.iter().all(|id| id.get_variant() == uuid::Variant::RFC4122));
    }

    #[test]
    fn ids_of_statements_sort_by_when_they_were_made() {
        let start = Duration::from_millis(1_796_000_000_123);
        let at = |micros| made_at(start + Duration::from_micros(micros), [0xff; 10]);
        let ids: Vec<Uuid> = (0..3000).map(at).collect();
        assert!(ids.iter().is_sorted());
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 3000);
        assert_eq!(ids[0].as_u128() >> 80, start.as_millis());
        assert_eq!(ids[1500].as_u128() >> 80, start.as_millis() + 1);
    }
}

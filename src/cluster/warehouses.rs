//! Whether all daemons make their tables in one place.
//!
//! A table's own location is in the catalog, so that all read it wherever it lies. What differs with the
//! warehouse is where new tables and the rows of submitted queries go, and where what was dropped is
//! cleared away: the leader looks into its own alone.

use std::cmp::Reverse;

use super::record::{Member, Trouble};

/// What a record says of a daemon that has no warehouse: no URL.
pub const NONE: &str = "none";

/// The daemons whose warehouse is not the one of most, and what is wrong with each. Who changes
/// the setting on one daemon after another always has some that nothing is wrong with. Of an
/// earlier version nothing is known.
pub fn astray(members: &[Member]) -> Vec<(String, Trouble)> {
    let Some(usual) = usual(members) else { return Vec::new() };
    let differs = |member: &&Member| place(member).is_some_and(|place| place != usual);
    let trouble = |member: &Member| (member.id.clone(), trouble(place(member), usual));
    members.iter().filter(differs).map(trouble).collect()
}

/// Where most are; of as many, rather anywhere than nowhere, and then where the first by name is.
fn usual(members: &[Member]) -> Option<&str> {
    let count = |wanted: &str| members.iter().filter(|it| place(it) == Some(wanted)).count();
    let known = members.iter().filter_map(place).enumerate();
    let most = known.max_by_key(|(at, place)| (count(place), *place != NONE, Reverse(*at)));
    most.map(|(_, place)| place)
}

fn place(member: &Member) -> Option<&str> {
    member.record.warehouse.as_deref()
}

fn trouble(own: Option<&str>, usual: &str) -> Trouble {
    let (outline, seen) = match own {
        Some(NONE) | None => (
            "it has no warehouse, and most daemons have one",
            format!("it has no warehouse, and most daemons have {usual}"),
        ),
        Some(own) if usual == NONE => (
            "it has a warehouse, and most daemons have none",
            format!("its warehouse is {own}, and most daemons have none"),
        ),
        Some(own) => (
            "its warehouse is not the one of most daemons",
            format!("its warehouse is {own}, and most daemons have {usual}"),
        ),
    };
    let full = format!("{seen}: set \"warehouse\" of all to one place that they share");
    Trouble { full, outline: outline.to_owned() }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use uuid::Uuid;

    use super::*;
    use crate::cluster::{Record, State};

    fn members(places: &[Option<&str>]) -> Vec<Member> {
        let member = |(at, place): (usize, &Option<&str>)| Member {
            id: format!("d{at}"),
            record: Record {
                incarnation: Uuid::nil(),
                instance: Uuid::nil(),
                postgres: String::new(),
                peer: String::new(),
                web: String::new(),
                version: String::new(),
                build: String::new(),
                cores: 1,
                memory: 1,
                pid_prefix: None,
                warehouse: place.map(str::to_owned),
                state: State::Ready,
                trouble: None,
                since: DateTime::UNIX_EPOCH,
            },
        };
        places.iter().enumerate().map(member).collect()
    }

    fn ids(places: &[Option<&str>]) -> Vec<String> {
        astray(&members(places)).into_iter().map(|(id, _)| id).collect()
    }

    #[test]
    fn the_fewer_are_astray() {
        let (a, b, none) = (Some("file:///a"), Some("file:///b"), Some(NONE));
        assert_eq!(ids(&[a, a, a]), [""; 0]);
        assert_eq!(ids(&[none, none]), [""; 0]);
        assert_eq!(ids(&[]), [""; 0]);
        // A roll from one to the other.
        assert_eq!(ids(&[b, a, a]), ["d0"]);
        assert_eq!(ids(&[b, b, a]), ["d2"]);
        assert_eq!(ids(&[b, a]), ["d1"]);
        assert_eq!(ids(&[b, b, a, a]), ["d2", "d3"]);
        assert_eq!(ids(&[none, a]), ["d0"]);
        assert_eq!(ids(&[none, none, a]), ["d2"]);
        // Earlier versions do not tell.
        assert_eq!(ids(&[None, a, None]), [""; 0]);
        assert_eq!(ids(&[None, b, a, a]), ["d1"]);
    }

    #[test]
    fn places_are_not_for_everybody() {
        let found = astray(&members(&[Some("file:///a"), Some("file:///b"), Some(NONE)]));
        assert_eq!(found.len(), 2);
        for (_, trouble) in found {
            assert!(trouble.full.contains("file:///a"), "{trouble:?}");
            assert!(!trouble.outline.contains("file:"), "{trouble:?}");
        }
    }
}

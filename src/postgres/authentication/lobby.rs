//! Clients that are not logged in yet.
//!
//! Everybody may enter. When there are too many, the oldest of the address with most of them has to
//! go: a flood of connections that never log in pushes itself out, and others get through.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use super::throttle::source;

#[derive(Debug)]
pub struct Lobby {
    limit: usize,
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    next: u64,
    count: usize,
    /// Oldest first.
    by_source: HashMap<IpAddr, VecDeque<(u64, CancellationToken)>>,
}

/// One client's place.
#[derive(Debug)]
pub struct Seat {
    lobby: Arc<Lobby>,
    source: IpAddr,
    number: u64,
    /// Ends when the client has to go.
    pub dismissed: CancellationToken,
}

impl Lobby {
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, inside: Mutex::default() })
    }

    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Seat {
        let source = source(address);
        let dismissed = CancellationToken::new();
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        if inside.count >= self.limit {
            inside.dismiss_one();
        }
        let number = inside.next;
        inside.next += 1;
        inside.count += 1;
        inside.by_source.entry(source).or_default().push_back((number, dismissed.clone()));
        Seat { lobby: self.clone(), source, number, dismissed }
    }
}

impl Inside {
    fn dismiss_one(&mut self) {
        let busiest = self.by_source.iter_mut().max_by_key(|(_, seats)| seats.len());
        let Some((source, seats)) = busiest else { return };
        let source = *source;
        if let Some((_, dismissed)) = seats.pop_front() {
            dismissed.cancel();
            self.count -= 1;
        }
        if seats.is_empty() {
            self.by_source.remove(&source);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut inside = self.lobby.inside.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(seats) = inside.by_source.get_mut(&self.source) else { return };
        // Not there any more if it was dismissed.
        let Ok(at) = seats.binary_search_by_key(&self.number, |(number, _)| *number) else {
            return;
        };
        seats.remove(at);
        if seats.is_empty() {
            inside.by_source.remove(&self.source);
        }
        inside.count -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn stays(seat: &Seat) -> bool {
        !seat.dismissed.is_cancelled()
    }

    #[test]
    fn a_flood_pushes_itself_out() {
        let lobby = Lobby::new(3);
        let other = lobby.enter(ip("10.0.0.2"));
        let flood: Vec<_> = (0..10).map(|_| lobby.enter(ip("10.0.0.1"))).collect();
        assert!(stays(&other));
        assert_eq!(flood.iter().map(stays).collect::<Vec<_>>()[7..], [false, true, true]);
        // Another newcomer takes the flood's place, too.
        let newcomer = lobby.enter(ip("10.0.0.3"));
        assert!(stays(&newcomer) && stays(&other) && !stays(&flood[8]) && stays(&flood[9]));
    }

    #[test]
    fn who_goes_makes_room() {
        let lobby = Lobby::new(2);
        for _ in 0..10 {
            let first = lobby.enter(ip("10.0.0.1"));
            let second = lobby.enter(ip("10.0.0.1"));
            assert!(stays(&first) && stays(&second));
        }
        let dismissed = lobby.enter(ip("10.0.0.1"));
        let (_second, _third) = (lobby.enter(ip("10.0.0.1")), lobby.enter(ip("10.0.0.1")));
        assert!(!stays(&dismissed));
        drop(dismissed);
        let inside = lobby.inside.lock().expect("not poisoned");
        assert_eq!((inside.count, inside.by_source.len()), (2, 1));
    }
}

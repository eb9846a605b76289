//! Clients that are not logged in yet.
//!
//! Everybody may enter. When there are too many, one of the address with most of them has to go: the
//! oldest of those that have not said yet what they want, else the oldest. So a flood of connections
//! that never log in pushes itself out, and others get through, even from the same address.

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
    by_source: HashMap<IpAddr, Seats>,
}

/// The clients of one address, oldest first.
#[derive(Debug, Default)]
struct Seats {
    silent: VecDeque<(u64, CancellationToken)>,
    /// Those whose start-up packet has come.
    speaking: VecDeque<(u64, CancellationToken)>,
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
        let seats = inside.by_source.entry(source).or_default();
        seats.silent.push_back((number, dismissed.clone()));
        Seat { lobby: self.clone(), source, number, dismissed }
    }
}

impl Inside {
    fn dismiss_one(&mut self) {
        let busiest = self.by_source.iter_mut().max_by_key(|(_, seats)| seats.len());
        let Some((source, seats)) = busiest else { return };
        let source = *source;
        if let Some((_, dismissed)) =
            seats.silent.pop_front().or_else(|| seats.speaking.pop_front())
        {
            dismissed.cancel();
            self.count -= 1;
        }
        if seats.is_empty() {
            self.by_source.remove(&source);
        }
    }
}

impl Seats {
    fn len(&self) -> usize {
        self.silent.len() + self.speaking.len()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `None` if it was dismissed.
    fn take(&mut self, number: u64) -> Option<(u64, CancellationToken)> {
        [&mut self.silent, &mut self.speaking].into_iter().find_map(|seats| {
            let at = seats.binary_search_by_key(&number, |(number, _)| *number).ok()?;
            seats.remove(at)
        })
    }

    /// Before the first one that is younger.
    fn speaks(&mut self, number: u64) {
        let Some(seat) = self.take(number) else { return };
        let at = self.speaking.partition_point(|(other, _)| *other < number);
        self.speaking.insert(at, seat);
    }
}

impl Seat {
    /// The client has said what it wants.
    pub fn speaks(&self) {
        let mut inside = self.lobby.inside.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seats) = inside.by_source.get_mut(&self.source) {
            seats.speaks(self.number);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut inside = self.lobby.inside.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(seats) = inside.by_source.get_mut(&self.source) else { return };
        if seats.take(self.number).is_none() {
            return;
        }
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
    fn who_speaks_goes_after_the_silent() {
        let lobby = Lobby::new(3);
        let client = lobby.enter(ip("10.0.0.1"));
        client.speaks();
        let flood: Vec<_> = (0..10).map(|_| lobby.enter(ip("10.0.0.1"))).collect();
        assert!(stays(&client) && flood.iter().filter(|seat| stays(seat)).count() == 2);
        flood.iter().for_each(Seat::speaks);
        let _newcomer = lobby.enter(ip("10.0.0.1"));
        assert!(!stays(&client), "where all have spoken, the oldest goes");
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

//! Who is connected: how many, from where, and which of them are idle.
//!
//! A limit must never turn callers away while connections stand around unused, so at the limit the one
//! that has been idle longest makes room. Whoever comes over a trusted network is not counted by
//! address: there one address stands for everybody.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use futures::task::AtomicWaker;
use holdline_policy::Moment;

use crate::clock::Clock;

/// One connection.
#[derive(Debug)]
pub struct Client {
    /// Where it comes from: who connected, or who a trusted balancer says did.
    pub address: IpAddr,
    /// Requests that have begun and not ended.
    busy: AtomicU32,
    /// When the last of them began, and when the last of them ended, in microseconds.
    began: AtomicU64,
    rested: AtomicU64,
    ended: AtomicBool,
    waker: AtomicWaker,
}

/// A request on a connection, from its first byte until it is dropped.
#[derive(Debug)]
pub struct Busy(Arc<Client>);

/// Everybody who is connected.
#[derive(Debug, Default)]
pub struct Clients(Mutex<Roster>);

#[derive(Debug, Default)]
struct Roster {
    next: u64,
    all: HashMap<u64, Option<Arc<Client>>>,
    by_address: HashMap<IpAddr, u32>,
}

/// A place among the connected; given back when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    clients: Arc<Clients>,
    number: u64,
    counted: Option<IpAddr>,
}

// === impl Client ===

impl Client {
    fn new(address: IpAddr, now: Moment) -> Client {
        Client {
            address,
            busy: AtomicU32::new(0),
            began: AtomicU64::new(0),
            rested: AtomicU64::new(micros(now)),
            ended: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        }
    }

    /// A request has begun.
    pub fn begin(self: &Arc<Client>, now: Moment) -> Busy {
        self.began.store(micros(now), Ordering::Relaxed);
        self.busy.fetch_add(1, Ordering::Relaxed);
        Busy(self.clone())
    }

    /// When the last request began.
    pub fn began(&self) -> Moment {
        Moment::at(Duration::from_micros(self.began.load(Ordering::Relaxed)))
    }

    /// The last request has ended.
    pub(super) fn rest(&self, now: Moment) {
        self.rested.store(micros(now), Ordering::Relaxed);
    }

    /// Ready once the connection is to end. For one task at a time.
    pub(super) fn poll_ended(&self, waker: &Waker) -> Poll<()> {
        self.waker.register(waker);
        if self.ended.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Since when it has been idle; none while it is not, or while it is ending.
    fn idle_since(&self) -> Option<u64> {
        let idle = self.busy.load(Ordering::Relaxed) == 0 && !self.ended.load(Ordering::Relaxed);
        let last = || self.rested.load(Ordering::Relaxed).max(self.began.load(Ordering::Relaxed));
        idle.then(last)
    }

    /// Waits until it has been idle for as long as `limit` says at the time.
    pub(super) async fn idle_for(&self, limit: impl Fn() -> Duration, clock: Clock) {
        loop {
            let limit = limit();
            let idle = self.idle_since().map_or(Duration::ZERO, |since| {
                clock.now().since(Moment::at(Duration::from_micros(since)))
            });
            if idle >= limit {
                return;
            }
            tokio::time::sleep(limit - idle).await;
        }
    }

    fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.waker.wake();
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl Clients ===

impl Clients {
    /// A place for one more, of so many at most. At the limit the connection that has been idle longest
    /// is ended; without an idle one there is no place. Tells whether one was ended.
    pub(super) fn admit(self: &Arc<Self>, most: usize) -> Option<(Seat, bool)> {
        let mut roster = self.lock();
        let full = roster.all.len() >= most;
        if full {
            let idle = roster.all.values().flatten();
            let idle = idle.filter_map(|client| Some((client.idle_since()?, client)));
            idle.min_by_key(|(since, _)| *since)?.1.end();
        }
        let number = roster.next;
        roster.next += 1;
        roster.all.insert(number, None);
        Some((Seat { clients: self.clone(), number, counted: None }, full))
    }

    /// Everybody who is connected.
    pub fn count(&self) -> usize {
        self.lock().all.len()
    }

    /// Ends every connection that is idle.
    pub fn end_idle(&self) {
        for client in self.lock().all.values().flatten() {
            if client.idle_since().is_some() {
                client.end();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Roster> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Seat ===

impl Seat {
    /// Says who sits here. With a limit for the address, none if there are as many already.
    pub(super) fn take(
        &mut self,
        address: IpAddr,
        most: Option<u32>,
        now: Moment,
    ) -> Option<Arc<Client>> {
        let client = Arc::new(Client::new(address, now));
        let mut roster = self.clients.lock();
        if let Some(most) = most {
            let count = roster.by_address.entry(address).or_default();
            if *count >= most {
                return None;
            }
            *count += 1;
            self.counted = Some(address);
        }
        roster.all.insert(self.number, Some(client.clone()));
        Some(client)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut roster = self.clients.lock();
        roster.all.remove(&self.number);
        let Some(address) = self.counted else { return };
        if let Some(count) = roster.by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                roster.by_address.remove(&address);
            }
        }
    }
}

fn micros(moment: Moment) -> u64 {
    u64::try_from(moment.since_start().as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANNA: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn at(seconds: u64) -> Moment {
        Moment::at(Duration::from_secs(seconds))
    }

    fn has_ended(client: &Client) -> bool {
        client.poll_ended(Waker::noop()).is_ready()
    }

    #[test]
    fn at_the_limit_the_longest_idle_makes_room() {
        let clients = Arc::new(Clients::default());
        let mut seats: Vec<_> = (0..3).map(|_| clients.admit(3).unwrap().0).collect();
        let sit = |(since, seat): (&u64, &mut Seat)| seat.take(ANNA, None, at(*since)).unwrap();
        let taken: Vec<_> = [3, 1, 2].iter().zip(&mut seats).map(sit).collect();
        let busy = taken[1].begin(at(4));
        let (one_more, made_room) = clients.admit(3).unwrap();
        assert!(made_room && has_ended(&taken[2]));
        assert!(!has_ended(&taken[0]) && !has_ended(&taken[1]));
        let _and_another = clients.admit(3).unwrap();
        assert!(has_ended(&taken[0]), "one that is ending makes no room twice");
        assert!(clients.admit(3).is_none(), "nobody is idle");
        drop((busy, one_more));
        clients.end_idle();
        assert!(has_ended(&taken[1]));
        drop(seats);
        assert_eq!(clients.count(), 1);
    }

    #[test]
    fn an_address_has_its_share() {
        let clients = Arc::new(Clients::default());
        let mut seats: Vec<_> = (0..4).map(|_| clients.admit(9).unwrap().0).collect();
        let taken: Vec<bool> =
            seats.iter_mut().map(|seat| seat.take(ANNA, Some(2), at(1)).is_some()).collect();
        assert_eq!(taken, [true, true, false, false]);
        assert!(seats[2].take(ANNA, None, at(1)).is_some(), "trusted networks are not counted");
        seats.clear();
        assert!(clients.lock().by_address.is_empty());
    }
}

//! Who is connected: how many, from where, and which of them are idle.
//!
//! A limit must never turn callers away while connections stand around unused, so at the limit those
//! that have been idle longest make room. Whoever comes over a trusted network is not counted by
//! address: there one address stands for everybody.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use futures::task::AtomicWaker;
use holdline_policy::Moment;

use super::Closed;
use crate::clock::Clock;

/// One connection.
#[derive(Debug)]
pub struct Client {
    /// Where it comes from: who connected, or who a trusted balancer says did.
    pub address: IpAddr,
    /// Whether what it says of itself may be believed, where its address is trusted. A balancer that does
    /// not say who connected vouches for nobody.
    pub may_be_believed: bool,
    trusted: bool,
    clock: Clock,
    /// Requests that have begun and not ended, greetings and heads on their way among them.
    busy: AtomicU32,
    /// When the last of them began, and when the last of them ended, in microseconds.
    began: AtomicU64,
    rested: AtomicU64,
    /// Why it is to end; 0 while it is not.
    ended: AtomicU8,
    waker: AtomicWaker,
    /// Whether it may still be sending when it is closed.
    unread: AtomicBool,
}

/// A request on a connection, from its first byte until it is dropped.
#[derive(Debug)]
pub struct Busy(Arc<Client>);

/// Somebody who connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Newcomer {
    /// Where from.
    pub(super) address: IpAddr,
    /// How many connections there may be from there; none: as many as there are, from a trusted network.
    pub(super) share: Option<u32>,
    /// Whether what it says of itself may be believed.
    pub(super) may_be_believed: bool,
}

/// Everybody who is connected.
#[derive(Debug, Default)]
pub struct Clients(Mutex<Roster>);

#[derive(Debug, Default)]
struct Roster {
    next: u64,
    all: HashMap<u64, Option<Arc<Client>>>,
    by_network: HashMap<IpAddr, u32>,
}

/// A place among the connected; given back when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    clients: Arc<Clients>,
    number: u64,
    counted: Option<IpAddr>,
}

/// The part of the idle ones that makes room at once, so that looking for them is worth it.
const MAKES_ROOM: usize = 64;
/// How many more than allowed there may be while those that make room are on their way out: one in so many.
const ON_THEIR_WAY: usize = 16;

// === impl Client ===

impl Client {
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

    /// Notes that the client may still be sending what nobody reads.
    pub fn leaves_unread(&self) {
        self.unread.store(true, Ordering::Relaxed);
    }

    pub(super) fn left_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed)
    }

    /// Ready once the connection is to end, with the reason. For one task at a time.
    pub(super) fn poll_ended(&self, waker: &Waker) -> Poll<Closed> {
        self.waker.register(waker);
        match self.ended.load(Ordering::Acquire) {
            0 => Poll::Pending,
            STOPPING => Poll::Ready(Closed::Stopping),
            _ => Poll::Ready(Closed::MadeRoom),
        }
    }

    /// Since when it has been idle; none while it is not, or while it is ending.
    fn idle_since(&self) -> Option<u64> {
        let idle =
            self.busy.load(Ordering::Relaxed) == 0 && self.ended.load(Ordering::Relaxed) == 0;
        idle.then(|| self.rested.load(Ordering::Relaxed))
    }

    /// Waits until it has been idle for as long as `limit` says at the time.
    pub(super) async fn idle_for(&self, limit: impl Fn() -> Duration) {
        loop {
            let limit = limit();
            let idle = self.idle_since().map_or(Duration::ZERO, |since| {
                self.clock.now().since(Moment::at(Duration::from_micros(since)))
            });
            if idle >= limit {
                return;
            }
            tokio::time::sleep(limit - idle).await;
        }
    }

    fn end(&self, why: u8) {
        self.ended.store(why, Ordering::Release);
        self.waker.wake();
    }
}

/// Why a connection is to end.
const MADE_ROOM: u8 = 1;
const STOPPING: u8 = 2;

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.rested.store(micros(self.0.clock.now()), Ordering::Relaxed);
        self.0.busy.fetch_sub(1, Ordering::Release);
    }
}

// === impl Clients ===

impl Clients {
    /// A place for one more, of so many at most. At the limit those that have been idle longest are ended,
    /// though nobody from a trusted network for somebody who is not; without an idle one there is no
    /// place. Whoever has his share already moves nobody.
    pub(super) fn admit(self: &Arc<Self>, newcomer: Newcomer, most: usize) -> Result<Seat, Closed> {
        let mut roster = self.lock();
        roster.check_share(newcomer)?;
        if roster.all.len() >= most {
            let many_are_on_their_way = roster.all.len() >= most + (most / ON_THEIR_WAY).max(1);
            if many_are_on_their_way || !roster.make_room(newcomer.share.is_none(), most) {
                return Err(Closed::TooMany);
            }
        }
        let number = roster.next;
        roster.next += 1;
        roster.all.insert(number, None);
        Ok(Seat { clients: self.clone(), number, counted: None })
    }

    /// Everybody who is connected.
    pub fn count(&self) -> usize {
        self.lock().all.len()
    }

    /// Whether anybody greets, sends a head, or waits for an answer.
    pub fn is_any_busy(&self) -> bool {
        let roster = self.lock();
        let mut clients = roster.all.values();
        // Who has not been met yet has just connected.
        clients.any(|client| client.as_ref().is_none_or(|one| one.busy.load(Ordering::Acquire) > 0))
    }

    /// Ends every connection that is idle.
    pub fn end_idle(&self) {
        for client in self.lock().all.values().flatten() {
            if client.idle_since().is_some() {
                client.end(STOPPING);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Roster> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Roster ===

impl Roster {
    fn check_share(&self, newcomer: Newcomer) -> Result<(), Closed> {
        let Some(share) = newcomer.share else { return Ok(()) };
        let count = self.by_network.get(&network_of(newcomer.address)).copied().unwrap_or(0);
        if count < share { Ok(()) } else { Err(Closed::TooManyFromAddress) }
    }

    /// Ends those that have been idle longest; false if nobody is.
    fn make_room(&self, for_trusted: bool, most: usize) -> bool {
        let may_go = |client: &&Arc<Client>| for_trusted || !client.trusted;
        let idle = self.all.values().flatten().filter(may_go);
        let mut idle: Vec<_> =
            idle.filter_map(|client| Some((client.idle_since()?, client))).collect();
        let enough = (most / MAKES_ROOM).clamp(1, idle.len().max(1));
        if enough < idle.len() {
            idle.select_nth_unstable_by_key(enough - 1, |(since, _)| *since);
        }
        idle.iter().take(enough).for_each(|(_, client)| client.end(MADE_ROOM));
        !idle.is_empty()
    }
}

// === impl Seat ===

impl Seat {
    /// Says who sits here, unless as many are here from there already.
    pub(super) fn take(&mut self, who: Newcomer, clock: Clock) -> Result<Arc<Client>, Closed> {
        let client = Arc::new(Client {
            address: who.address,
            may_be_believed: who.may_be_believed,
            trusted: who.share.is_none(),
            clock,
            busy: AtomicU32::new(0),
            began: AtomicU64::new(0),
            rested: AtomicU64::new(micros(clock.now())),
            ended: AtomicU8::new(0),
            waker: AtomicWaker::new(),
            unread: AtomicBool::new(false),
        });
        let mut roster = self.clients.lock();
        roster.check_share(who)?;
        if who.share.is_some() {
            let network = network_of(who.address);
            *roster.by_network.entry(network).or_default() += 1;
            self.counted = Some(network);
        }
        roster.all.insert(self.number, Some(client.clone()));
        Ok(client)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut roster = self.clients.lock();
        roster.all.remove(&self.number);
        let Some(network) = self.counted else { return };
        if let Some(count) = roster.by_network.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                roster.by_network.remove(&network);
            }
        }
    }
}

/// What counts as one address: of version 6, the network of 64 bits that one subscriber is given.
fn network_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

fn micros(moment: Moment) -> u64 {
    u64::try_from(moment.since_start().as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANNA: Newcomer = Newcomer {
        address: IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)),
        share: Some(9),
        may_be_believed: true,
    };
    const BALANCER: Newcomer = Newcomer { share: None, ..ANNA };

    fn why(client: &Client) -> Option<Closed> {
        match client.poll_ended(Waker::noop()) {
            Poll::Ready(why) => Some(why),
            Poll::Pending => None,
        }
    }

    fn sit(clients: &Arc<Clients>, who: Newcomer) -> (Seat, Arc<Client>) {
        let mut seat = clients.admit(who, 3).unwrap();
        let client = seat.take(who, Clock::start()).unwrap();
        (seat, client)
    }

    #[test]
    fn at_the_limit_the_longest_idle_makes_room() {
        let clients = Arc::new(Clients::default());
        let mut sitting: Vec<_> = (0..3).map(|_| sit(&clients, ANNA)).collect();
        for (n, (_, client)) in sitting.iter().enumerate() {
            client.rested.store([3, 1, 2][n], Ordering::Relaxed);
        }
        let busy = sitting[1].1.begin(Moment::default());
        let one_more = clients.admit(ANNA, 3).unwrap();
        let whys = |sitting: &[(Seat, Arc<Client>)]| -> Vec<_> {
            sitting.iter().map(|(_, client)| why(client)).collect()
        };
        assert_eq!(whys(&sitting), [None, None, Some(Closed::MadeRoom)]);
        assert_eq!(clients.admit(ANNA, 3).unwrap_err(), Closed::TooMany, "one is on its way out");
        sitting.remove(2);
        drop(one_more);
        drop(busy);
        clients.end_idle();
        assert_eq!(whys(&sitting), [Some(Closed::Stopping); 2]);
        drop(sitting);
        assert_eq!(clients.count(), 0);
    }

    #[test]
    fn strangers_do_not_move_the_trusted() {
        let clients = Arc::new(Clients::default());
        let sitting: Vec<_> = (0..3).map(|_| sit(&clients, BALANCER)).collect();
        assert_eq!(clients.admit(ANNA, 3).unwrap_err(), Closed::TooMany);
        assert!(clients.admit(BALANCER, 3).is_ok());
        assert_eq!(sitting.iter().filter(|(_, client)| why(client).is_some()).count(), 1);
    }

    #[test]
    fn an_address_has_its_share() {
        let clients = Arc::new(Clients::default());
        let who = |last: u16| Newcomer {
            address: Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, last).into(),
            share: Some(2),
            may_be_believed: true,
        };
        let mut sitting: Vec<_> = (0..2).map(|n| sit(&clients, who(n))).collect();
        let refused = clients.admit(who(3), 9).unwrap_err();
        assert_eq!(refused, Closed::TooManyFromAddress, "a network of 64 bits is one subscriber");
        assert!(clients.admit(BALANCER, 9).is_ok(), "trusted networks are not counted");
        sitting.clear();
        assert!(clients.lock().by_network.is_empty());
    }
}

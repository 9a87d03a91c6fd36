//! Idle connections to one upstream.
//!
//! A connection stays with the thread that opened it, because its readiness is told to that thread;
//! only where a thread has none does it borrow another's. A connection that the upstream closed, or on
//! which it says something unasked, is thrown away when it is taken out or, at the latest, at the
//! next sweep; and so are, little by little, those that nobody has needed since the sweep before.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use futures::FutureExt as _;
use holdline_policy::Moment;
use pingora_core::protocols::Stream;
use tokio::io::AsyncReadExt as _;

/// Idle connections kept for one thread.
const CAPACITY: usize = 256;
/// The part of those not needed that one sweep closes.
const CLOSED_AT_ONCE: usize = 8;

/// Idle connections to one upstream.
#[derive(Debug)]
pub(super) struct Pool {
    shards: Vec<Shard>,
    patience: Duration,
}

/// Idle connections of one thread.
#[derive(Debug)]
struct Shard {
    idle: ArrayQueue<Idle>,
    /// The fewest there were since the last sweep: so many were not needed.
    fewest: AtomicUsize,
}

/// A connection to an upstream.
#[derive(Debug)]
pub struct Connection {
    /// What is written to and read from.
    pub stream: Stream,
    /// Where it leads.
    pub address: SocketAddr,
    home: usize,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Moment,
}

// === impl Connection ===

impl Connection {
    /// A connection that this thread has opened.
    pub(super) fn new(stream: Stream, address: SocketAddr) -> Connection {
        Connection { stream, address, home: thread_number() }
    }
}

// === impl Pool ===

impl Pool {
    /// A pool for so many threads whose connections may idle for `patience`.
    pub(super) fn new(threads: usize, patience: Duration) -> Pool {
        let shard = || Shard { idle: ArrayQueue::new(CAPACITY), fewest: AtomicUsize::new(0) };
        Pool { shards: std::iter::repeat_with(shard).take(threads.max(1)).collect(), patience }
    }

    /// Takes out a connection to `address` that can be used.
    pub(super) fn take(&self, address: SocketAddr, now: Moment) -> Option<Connection> {
        let own = thread_number();
        (0..self.shards.len()).find_map(|n| {
            let shard = &self.shards[(own + n) % self.shards.len()];
            // Each turn takes one out and puts none in, so that it ends.
            let usable = std::iter::from_fn(|| shard.idle.pop()).find_map(|mut idle| {
                self.serves(&mut idle, Some(address), now).then_some(idle.connection)
            });
            shard.fewest.fetch_min(shard.idle.len(), Ordering::Relaxed);
            usable
        })
    }

    /// Puts in a connection that has carried a whole exchange. One too many is closed.
    pub(super) fn put(&self, connection: Connection, now: Moment) {
        if !self.patience.is_zero() {
            let shard = &self.shards[connection.home % self.shards.len()];
            drop(shard.idle.push(Idle { connection, since: now }));
        }
    }

    /// Closes what cannot be used any more, and some of what nobody needs.
    pub(super) fn sweep(&self, address: Option<SocketAddr>, now: Moment) {
        for shard in &self.shards {
            let not_needed = shard.fewest.swap(usize::MAX, Ordering::Relaxed);
            let not_needed = not_needed.min(shard.idle.len()).div_ceil(CLOSED_AT_ONCE);
            for n in 0..shard.idle.len() {
                let Some(mut idle) = shard.idle.pop() else { break };
                if n >= not_needed && self.serves(&mut idle, address, now) {
                    drop(shard.idle.push(idle));
                }
            }
        }
    }

    fn serves(&self, idle: &mut Idle, address: Option<SocketAddr>, now: Moment) -> bool {
        Some(idle.connection.address) == address
            && now.since(idle.since) <= self.patience
            && is_quiet(&mut idle.connection.stream)
    }
}

/// Whether an idle connection is open and silent, as far as the operating system has told. However
/// many are asked at once, each is truly asked: the scheduler's budget does not count here.
fn is_quiet(stream: &mut Stream) -> bool {
    let mut byte = [0];
    tokio::task::unconstrained(stream.read(&mut byte)).now_or_never().is_none()
}

/// A small number for each thread that asks.
fn thread_number() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: usize = THREADS.fetch_add(1, Ordering::Relaxed);
    }
    NUMBER.with(|number| *number)
}

#[cfg(test)]
mod tests {
    use pingora_core::protocols::l4::stream::Stream as Tcp;
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// A connection, and the upstream's end of it.
    async fn connection() -> (Connection, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
        let stream = Box::new(Tcp::from(ours.unwrap()));
        (Connection::new(stream, address), theirs.unwrap().0)
    }

    const PATIENCE: Duration = Duration::from_secs(30);
    const NOW: Moment = Moment::at(Duration::from_secs(1000));

    #[tokio::test]
    async fn what_was_put_in_comes_out_once() {
        let pool = Pool::new(2, PATIENCE);
        let (connection, _theirs) = connection().await;
        let address = connection.address;
        pool.put(connection, NOW);
        assert!(pool.take(address, NOW).is_some());
        assert!(pool.take(address, NOW).is_none());
    }

    #[tokio::test]
    async fn what_cannot_be_used_does_not_come_out() {
        let pool = Pool::new(1, PATIENCE);
        let (kept, theirs) = connection().await;
        let address = kept.address;
        pool.put(kept, NOW);
        assert!(pool.take("127.0.0.1:1".parse().unwrap(), NOW).is_none(), "it leads elsewhere");
        drop(theirs);

        let (kept, _theirs) = connection().await;
        let address_of_second = kept.address;
        pool.put(kept, NOW);
        assert!(pool.take(address_of_second, NOW + PATIENCE * 2).is_none(), "it idled too long");
        assert_ne!(address, address_of_second);
    }

    #[tokio::test]
    async fn what_the_upstream_closed_or_spoke_on_is_swept_out() {
        for speaks in [false, true] {
            let pool = Pool::new(1, PATIENCE);
            let (mut kept, mut theirs) = connection().await;
            if speaks {
                theirs.write_all(b"HTTP/1.1 408 Too Slow\r\n\r\n").await.unwrap();
            } else {
                drop(theirs);
            }
            // It can be seen only once the system has told of it.
            let _ = kept.stream.try_peek(&mut [0]).await;
            let address = kept.address;
            pool.put(kept, NOW);
            pool.sweep(Some(address), NOW);
            assert!(pool.take(address, NOW).is_none());
        }
    }

    #[tokio::test]
    async fn what_nobody_needs_is_closed_little_by_little() {
        let pool = Pool::new(1, PATIENCE);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut theirs = Vec::new();
        for _ in 0..64 {
            let (ours, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
            theirs.push(accepted.unwrap());
            pool.put(Connection::new(Box::new(Tcp::from(ours.unwrap())), address), NOW);
        }
        // Before the first sweep it is not known what is needed.
        pool.sweep(Some(address), NOW);
        let mut left = Vec::new();
        for _ in 0..40 {
            // Two at a time are in use.
            let used = [pool.take(address, NOW), pool.take(address, NOW)];
            used.into_iter().flatten().for_each(|connection| pool.put(connection, NOW));
            pool.sweep(Some(address), NOW);
            left.push(pool.shards[0].idle.len());
        }
        assert!(left.first().is_some_and(|first| *first >= 54), "{left:?}");
        assert_eq!(left.last(), Some(&2), "{left:?}");
    }

    #[tokio::test]
    async fn every_dead_connection_is_seen_however_many_there_are() {
        let pool = Pool::new(1, PATIENCE);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        for _ in 0..200 {
            let (ours, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
            drop(accepted);
            let mut stream: Stream = Box::new(Tcp::from(ours.unwrap()));
            let _ = stream.try_peek(&mut [0]).await;
            pool.put(Connection::new(stream, address), NOW);
        }
        assert!(pool.take(address, NOW).is_none());
    }
}

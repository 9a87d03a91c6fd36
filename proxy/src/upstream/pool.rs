//! Idle connections to one upstream.
//!
//! A connection stays with the thread that used it, because its readiness is told to that thread;
//! only where a thread has none does it take another's. A connection that the upstream closed, or on
//! which it says something unasked, is thrown away when it is taken out or, at the latest, at the
//! next sweep.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use holdline_policy::Moment;
use pingora_core::protocols::Stream;
use tokio::io::{AsyncRead as _, ReadBuf};

/// Idle connections kept for one thread.
const CAPACITY: usize = 256;

/// Idle connections to one upstream.
#[derive(Debug)]
pub(super) struct Pool {
    shards: Vec<ArrayQueue<Idle>>,
    patience: Duration,
}

/// A connection to an upstream.
#[derive(Debug)]
pub struct Connection {
    /// What is written to and read from.
    pub stream: Stream,
    /// Where it leads.
    pub address: SocketAddr,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Moment,
}

// === impl Pool ===

impl Pool {
    /// A pool for so many threads whose connections may idle for `patience`.
    pub(super) fn new(threads: usize, patience: Duration) -> Pool {
        let shards = (0..threads.max(1)).map(|_| ArrayQueue::new(CAPACITY)).collect();
        Pool { shards, patience }
    }

    /// Takes out a connection to `address` that can be used.
    pub(super) fn take(&self, address: SocketAddr, now: Moment) -> Option<Connection> {
        let own = thread_number();
        (0..self.shards.len()).find_map(|n| {
            let shard = &self.shards[(own + n) % self.shards.len()];
            // Each turn takes one out and puts none in, so that it ends.
            std::iter::from_fn(|| shard.pop()).find_map(|mut idle| {
                self.serves(&mut idle, Some(address), now).then_some(idle.connection)
            })
        })
    }

    /// Puts in a connection that has carried a whole exchange. One too many is closed.
    pub(super) fn put(&self, connection: Connection, now: Moment) {
        let shard = &self.shards[thread_number() % self.shards.len()];
        drop(shard.push(Idle { connection, since: now }));
    }

    /// Closes what cannot be used any more.
    pub(super) fn sweep(&self, address: Option<SocketAddr>, now: Moment) {
        for shard in &self.shards {
            for _ in 0..shard.len() {
                let Some(mut idle) = shard.pop() else { break };
                if self.serves(&mut idle, address, now) {
                    drop(shard.push(idle));
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

/// Whether an idle connection is open and silent, as far as the operating system has told.
fn is_quiet(stream: &mut Stream) -> bool {
    let mut byte = [0];
    let mut cx = Context::from_waker(Waker::noop());
    Pin::new(stream).poll_read(&mut cx, &mut ReadBuf::new(&mut byte)).is_pending()
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
        (Connection { stream, address }, theirs.unwrap().0)
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
}

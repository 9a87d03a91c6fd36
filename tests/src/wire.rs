//! A wire between the edge and an upstream: a TCP relay that can be made to fail.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What a wire does to what passes over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    Sound,
    /// Everything is delayed by this much.
    Delayed(Duration),
    /// The way back carries one byte each time.
    Trickling(Duration),
    /// The way back ends after this many bytes, with a reset.
    CutAfter(usize),
    /// Nothing can connect, and what was connected is reset.
    Cut,
}

/// Connections that may wait to be taken.
const BACKLOG: u32 = 1024;

/// A wire.
#[derive(Debug)]
pub struct Wire {
    address: SocketAddr,
    condition: watch::Sender<Condition>,
    far_end: Arc<Mutex<SocketAddr>>,
    accepts: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

// === impl Wire ===

impl Wire {
    /// A sound wire to `far_end`.
    pub async fn to(far_end: SocketAddr) -> std::io::Result<Wire> {
        let listener = bound(SocketAddr::from(([127, 0, 0, 1], 0)))?.listen(BACKLOG)?;
        let address = listener.local_addr()?;
        let (condition, changes) = watch::channel(Condition::Sound);
        let (accepting, accepts) = watch::channel(true);
        let far_end = Arc::new(Mutex::new(far_end));
        let task = tokio::spawn(run(listener, address, far_end.clone(), changes, accepting));
        Ok(Wire { address, condition, far_end, accepts, task })
    }

    /// The near end.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The far end.
    pub fn far_end(&self) -> SocketAddr {
        *self.far_end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leads the wire elsewhere, for connections to come.
    pub fn lead_to(&self, far_end: SocketAddr) {
        *self.far_end.lock().unwrap_or_else(PoisonError::into_inner) = far_end;
    }

    /// Resets every connection and refuses new ones; done when this returns.
    pub async fn cut(&self) {
        self.condition.send_replace(Condition::Cut);
        // The task lives as long as the wire.
        let _ = self.accepts.clone().wait_for(|accepts| !accepts).await;
    }

    /// Delays everything.
    pub fn delay(&self, by: Duration) {
        self.condition.send_replace(Condition::Delayed(by));
    }

    /// Lets the answer through one byte at a time.
    pub fn trickle(&self, a_byte_every: Duration) {
        self.condition.send_replace(Condition::Trickling(a_byte_every));
    }

    /// Resets each connection after this many bytes of answer.
    pub fn cut_after(&self, bytes: usize) {
        self.condition.send_replace(Condition::CutAfter(bytes));
    }

    /// Makes it sound again; done when this returns.
    pub async fn mend(&self) {
        self.condition.send_replace(Condition::Sound);
        let _ = self.accepts.clone().wait_for(|accepts| *accepts).await;
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.condition.send_replace(Condition::Cut);
        self.task.abort();
    }
}

/// Accepts while the wire is whole. While it is cut the port stays bound, without listening, so that
/// connections are refused and nobody else is given the port.
async fn run(
    mut listener: TcpListener,
    address: SocketAddr,
    far_end: Arc<Mutex<SocketAddr>>,
    mut condition: watch::Receiver<Condition>,
    accepting: watch::Sender<bool>,
) {
    let changes = condition.clone();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((near, _)) = accepted else { return };
                let to = *far_end.lock().unwrap_or_else(PoisonError::into_inner);
                tokio::spawn(carry(near, to, changes.clone()));
                continue;
            }
            cut = condition.wait_for(|condition| *condition == Condition::Cut) => {
                if cut.is_err() {
                    return;
                }
            }
        }
        // It is bound before the other is closed, and listens in the end: nobody else ever gets the port.
        let Ok(placeholder) = bound(address) else { return };
        drop(listener);
        accepting.send_replace(false);
        if condition.wait_for(|condition| *condition != Condition::Cut).await.is_err() {
            return;
        }
        let Ok(again) = placeholder.listen(BACKLOG) else { return };
        listener = again;
        accepting.send_replace(true);
    }
}

fn bound(address: SocketAddr) -> std::io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(socket)
}

async fn carry(near: TcpStream, far_end: SocketAddr, mut condition: watch::Receiver<Condition>) {
    // Dropped with data unread or a linger of zero, a socket resets; both ends are meant to.
    let _ = near.set_zero_linger();
    let Ok(far) = TcpStream::connect(far_end).await else { return };
    let _ = far.set_zero_linger();
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    let there = there(near_in, far_out, condition.clone());
    let back = back(far_in, near_out, condition.clone());
    tokio::select! {
        () = async { tokio::join!(there, back); } => {}
        _ = condition.wait_for(|condition| *condition == Condition::Cut) => {}
    }
}

async fn there(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    condition: watch::Receiver<Condition>,
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let now = *condition.borrow();
        if let Condition::Delayed(by) = now {
            tokio::time::sleep(by).await;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

async fn back(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    condition: watch::Receiver<Condition>,
) {
    let mut buffer = vec![0; 16 * 1024];
    let mut carried = 0;
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let now = *condition.borrow();
        match now {
            Condition::Trickling(every) => {
                for byte in &buffer[..read] {
                    tokio::time::sleep(every).await;
                    if to.write_all(std::slice::from_ref(byte)).await.is_err() {
                        return;
                    }
                }
            }
            Condition::CutAfter(bytes) => {
                let passes = read.min(bytes.saturating_sub(carried));
                if to.write_all(&buffer[..passes]).await.is_err() || passes < read {
                    return;
                }
            }
            _ if to.write_all(&buffer[..read]).await.is_err() => return,
            _ => {}
        }
        carried += read;
    }
    let _ = to.shutdown().await;
}

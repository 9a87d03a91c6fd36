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

/// A wire.
#[derive(Debug)]
pub struct Wire {
    address: SocketAddr,
    condition: watch::Sender<Condition>,
    far_end: Arc<Mutex<SocketAddr>>,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

// === impl Wire ===

impl Wire {
    /// A sound wire to `far_end`.
    pub async fn to(far_end: SocketAddr) -> std::io::Result<Wire> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (condition, _) = watch::channel(Condition::Sound);
        let wire = Wire {
            address,
            condition,
            far_end: Arc::new(Mutex::new(far_end)),
            accepting: Mutex::new(None),
        };
        wire.accept(listener);
        Ok(wire)
    }

    /// The near end.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Leads the wire elsewhere, for connections to come.
    pub fn lead_to(&self, far_end: SocketAddr) {
        *self.far_end.lock().unwrap_or_else(PoisonError::into_inner) = far_end;
    }

    /// Resets every connection and refuses new ones.
    pub fn cut(&self) {
        self.condition.send_replace(Condition::Cut);
        if let Some(task) = self.accepting().take() {
            task.abort();
        }
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

    /// Makes it sound again.
    pub fn mend(&self) -> std::io::Result<()> {
        self.condition.send_replace(Condition::Sound);
        if self.accepting().as_ref().is_none_or(JoinHandle::is_finished) {
            let socket = TcpSocket::new_v4()?;
            socket.set_reuseaddr(true)?;
            socket.bind(self.address)?;
            self.accept(socket.listen(1024)?);
        }
        Ok(())
    }

    fn accepting(&self) -> std::sync::MutexGuard<'_, Option<JoinHandle<()>>> {
        self.accepting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(&self, listener: TcpListener) {
        let (far_end, condition) = (self.far_end.clone(), self.condition.subscribe());
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let to = *far_end.lock().unwrap_or_else(PoisonError::into_inner);
                tokio::spawn(carry(near, to, condition.clone()));
            }
        });
        *self.accepting() = Some(task);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.cut();
    }
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

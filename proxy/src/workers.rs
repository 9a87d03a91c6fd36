//! The threads of the data plane. Each has a scheduler of its own and keeps what it was given: handing a
//! visit from one thread to another would cost more than it evens out.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Builder, JoinHandle};

use tokio::runtime::{self, Handle};
use tokio::sync::oneshot;

/// The threads, until dropped. What still runs then is broken off.
pub struct Workers {
    threads: Vec<JoinHandle<()>>,
    /// Dropped to tell the threads.
    running: Vec<oneshot::Sender<()>>,
    handles: Handles,
}

/// Gives work to the threads.
#[derive(Debug, Clone)]
pub struct Handles(Arc<[(Handle, AtomicUsize)]>);

/// One connection on one thread; counted until dropped.
#[derive(Debug)]
pub struct Load(Handles, usize);

// === impl Workers ===

impl Workers {
    /// Starts so many threads.
    pub fn start(count: usize) -> std::io::Result<Workers> {
        let (mut threads, mut running) = (Vec::new(), Vec::new());
        let mut handles = Vec::new();
        for number in 0..count.max(1) {
            let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
            handles.push((runtime.handle().clone(), AtomicUsize::new(0)));
            let (stop, stopped) = oneshot::channel();
            let thread =
                Builder::new().name(format!("holdline-data-{number}")).spawn(move || {
                    // Told to stop, or left alone: the end either way.
                    let _ = runtime.block_on(stopped);
                })?;
            threads.push(thread);
            running.push(stop);
        }
        Ok(Workers { threads, running, handles: Handles(handles.into()) })
    }

    /// Gives work to them.
    pub fn handles(&self) -> &Handles {
        &self.handles
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.running.clear();
        for thread in self.threads.drain(..) {
            // A thread that panicked has ended as well.
            let _ = thread.join();
        }
    }
}

// === impl Handles ===

impl Handles {
    /// The thread with the fewest connections, and a count of one more for it.
    pub fn least_loaded(&self) -> (&Handle, Load) {
        let loads = self.0.iter().map(|(_, load)| load.load(Ordering::Relaxed));
        let least = loads.enumerate().min_by_key(|(_, load)| *load).map_or(0, |(index, _)| index);
        self.0[least].1.fetch_add(1, Ordering::Relaxed);
        (&self.0[least].0, Load(self.clone(), least))
    }

    /// Every thread.
    pub fn all(&self) -> impl Iterator<Item = &Handle> {
        self.0.iter().map(|(handle, _)| handle)
    }

    /// One of the threads, always the same for a number.
    pub fn of(&self, number: usize) -> &Handle {
        &self.0[number % self.0.len()].0
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.0[self.1].1.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_spread_evenly_and_the_end_is_prompt() {
        let workers = Workers::start(3).unwrap();
        let mut loads: Vec<Load> = (0..6).map(|_| workers.handles().least_loaded().1).collect();
        let counts = |workers: &Workers| -> Vec<usize> {
            workers.handles.0.iter().map(|(_, load)| load.load(Ordering::Relaxed)).collect()
        };
        assert_eq!(counts(&workers), [2, 2, 2]);
        loads.retain(|load| load.1 != 1);
        assert_eq!(counts(&workers), [2, 0, 2]);
        assert_eq!(workers.handles().least_loaded().1.1, 1);
        workers.handles().of(1).spawn(std::future::pending::<()>());
        drop(workers);
    }
}

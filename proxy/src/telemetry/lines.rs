//! Lines that are written elsewhere: handed over without waiting, and written by a thread that gathers.
//!
//! Handing over neither waits nor wakes anybody: a sleeping thread woken for every visit would cost more
//! than the visit's whole proof. When the thread cannot keep up (a full disk, a stopped pipe), lines
//! are dropped and counted.

use std::io::Write;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use prometheus::IntCounter;

/// How long the end of the process waits for what was not written yet.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Takes lines.
#[derive(Debug, Clone)]
pub struct Lines {
    lines: SyncSender<String>,
    lost: IntCounter,
}

/// Waits, when dropped, until everything handed over was written, but not for ever: a reader that has
/// stopped reading must not keep the process alive.
#[derive(Debug)]
pub struct LinesGuard {
    stop: Option<SyncSender<()>>,
    ended: Receiver<()>,
}

// === impl Lines ===

impl Lines {
    /// Lines that go to `out`, what has gathered `every` so often. `room` of them may wait.
    pub fn start(
        name: &str,
        out: impl Write + Send + 'static,
        every: Duration,
        room: usize,
        lost: IntCounter,
    ) -> std::io::Result<(Lines, LinesGuard)> {
        let (lines, waiting) = sync_channel(room);
        let (stop, stopped) = sync_channel(1);
        let (end, ended) = sync_channel(1);
        let counted = lost.clone();
        std::thread::Builder::new().name(name.into()).spawn(move || {
            write(out, every, &waiting, &stopped, &counted);
            drop(end);
        })?;
        Ok((Lines { lines, lost }, LinesGuard { stop: Some(stop), ended }))
    }

    /// Hands over a line, which ends with a line feed.
    pub fn push(&self, line: String) {
        if self.lines.try_send(line).is_err() {
            self.lost.inc();
        }
    }
}

impl Drop for LinesGuard {
    fn drop(&mut self) {
        drop(self.stop.take());
        // Either way there is nothing more to be done.
        let _ = self.ended.recv_timeout(LAST_WORDS);
    }
}

fn write(
    mut out: impl Write,
    every: Duration,
    waiting: &Receiver<String>,
    stopped: &Receiver<()>,
    lost: &IntCounter,
) {
    let mut gathered = String::new();
    loop {
        let last =
            matches!(stopped.recv_timeout(every), Ok(()) | Err(RecvTimeoutError::Disconnected));
        let mut count = 0;
        while let Ok(line) = waiting.try_recv() {
            gathered.push_str(&line);
            count += 1;
        }
        if !gathered.is_empty() {
            if out.write_all(gathered.as_bytes()).is_err() {
                lost.inc_by(count);
            }
            gathered.clear();
        }
        if last {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pipe whose reader has stopped reading.
    struct Stuck(Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            let _ = self.0.recv();
            Err(std::io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn one_line(stuck: Receiver<()>, room: usize) -> (IntCounter, Lines, LinesGuard) {
        let lost = IntCounter::new("lost", "lost").unwrap();
        let (soon, counted) = (Duration::from_millis(10), lost.clone());
        let (lines, guard) = Lines::start("lines", Stuck(stuck), soon, room, counted).unwrap();
        lines.push("a line\n".to_owned());
        (lost, lines, guard)
    }

    #[test]
    fn a_reader_that_stopped_reading_does_not_keep_the_process_alive() {
        let (_never, stuck) = sync_channel(1);
        let (_, _, guard) = one_line(stuck, 1);
        let begun = std::time::Instant::now();
        drop(guard);
        assert!(begun.elapsed() < LAST_WORDS * 2, "{:?}", begun.elapsed());
    }

    #[test]
    fn lines_for_which_there_is_no_room_are_counted() {
        let (_never, stuck) = sync_channel(1);
        let (lost, lines, guard) = one_line(stuck, 1);
        // The first is being written or waits; of those behind it one may.
        (0..3).for_each(|_| lines.push("another\n".to_owned()));
        assert!(lost.get() >= 1, "{}", lost.get());
        drop(guard);
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted() {
        let (never, stuck) = sync_channel(1);
        drop(never);
        let (lost, _, guard) = one_line(stuck, 1);
        drop(guard);
        assert_eq!(lost.get(), 1);
    }
}

//! Logs: structured, one line an event, to standard error, written by a thread of their own.
//!
//! Nothing must ever wait for a terminal or a full pipe: lines go through a bounded queue, and when
//! that is full the newest are dropped. Visits have a log of their own, beside this one.

use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// Keeps the writing thread alive; what is queued is written when this is dropped.
#[derive(Debug)]
pub struct LogGuard {
    _writer: tracing_appender::non_blocking::WorkerGuard,
}

/// Lines that may wait for the writer.
const QUEUE: usize = 65_536;

/// Starts logging. `HOLDLINE_LOG` filters (`warn`, `debug`); the default is `info`.
pub fn init(format: LogFormat) -> LogGuard {
    let (writer, guard) = tracing_appender::non_blocking::NonBlockingBuilder::default()
        .buffered_lines_limit(QUEUE)
        .lossy(true)
        .finish(std::io::stderr());
    // The framework reports every client that goes away as an error; the visit's line says it better.
    let filter = EnvFilter::try_from_env("HOLDLINE_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,pingora_core=off,pingora_proxy=off"));
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(false);
    // A second initialisation in one process (tests) keeps the first.
    let _ = match format {
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).try_init(),
        LogFormat::Text => builder.try_init(),
    };
    LogGuard { _writer: guard }
}

//! What benchmarks need of the machine: programs that `tests/setup` fetched, and free addresses.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;

use anyhow::{Context as _, bail};

/// The program inside the wheel that `tests/setup` fetched into `target/tools/<name>`.
pub fn binary_of_wheel(name: &str) -> anyhow::Result<PathBuf> {
    let home = std::env::current_dir()?.join("target/tools").join(name);
    let mut folders = vec![home.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)
            .with_context(|| format!("{}: run it by make", folder.display()))?
        {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else if entry.file_name() == name && entry.metadata()?.len() > 1_000_000 {
                return Ok(entry.path());
            }
        }
    }
    bail!("no {name} in {}: run it by make", home.display())
}

/// An address that is free now. Another program could take it before ours does; then starting fails.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

//! The phone company's REST API, for a world's origin.

use std::net::{SocketAddr, TcpListener};

use tokio::task::JoinHandle;
use twilio_sim::{Company, rest};

/// A REST API at an address that stays, whoever serves it.
#[derive(Debug)]
pub(crate) struct RestApi {
    listener: TcpListener,
    serving: Option<JoinHandle<()>>,
}

// === impl RestApi ===

impl RestApi {
    /// Takes an address; requests wait until they are served.
    pub(crate) fn bind() -> anyhow::Result<RestApi> {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        listener.set_nonblocking(true)?;
        Ok(RestApi { listener, serving: None })
    }

    /// Where it is.
    pub(crate) fn url(&self) -> anyhow::Result<String> {
        Ok(format!("http://{}", self.listener.local_addr()?))
    }

    /// Lets this company serve it from now on.
    pub(crate) fn serve(&mut self, company: &Company) -> anyhow::Result<()> {
        self.stop();
        let listener = tokio::net::TcpListener::from_std(self.listener.try_clone()?)?;
        let api = rest::router(company.clone());
        self.serving = Some(tokio::spawn(async move {
            // It ends when it is stopped.
            let _ = axum::serve(listener, api).await;
        }));
        Ok(())
    }

    /// Serves it no more; requests wait.
    pub(crate) fn stop(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
        }
    }
}

impl Drop for RestApi {
    fn drop(&mut self) {
        self.stop();
    }
}

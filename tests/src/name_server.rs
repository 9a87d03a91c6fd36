//! A name server on loopback that says what it is told to say.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::proto::op::{Metadata, ResponseCode};
use hickory_server::proto::rr::{RData, Record};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use tokio::net::UdpSocket;

/// What it says to every question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Says {
    /// These addresses, for this long.
    Addresses(Vec<IpAddr>, Duration),
    /// There is no such name.
    NoSuchName,
    /// Something is wrong with the server.
    Failure,
    /// Nothing.
    Nothing,
}

/// A running name server.
pub struct NameServer {
    address: SocketAddr,
    says: Arc<Mutex<Says>>,
    asked: Arc<AtomicU64>,
    _server: Server<Handler>,
}

struct Handler {
    says: Arc<Mutex<Says>>,
    asked: Arc<AtomicU64>,
}

// === impl NameServer ===

impl NameServer {
    /// Starts one.
    pub async fn start(says: Says) -> std::io::Result<NameServer> {
        let socket = UdpSocket::bind("127.0.0.1:0").await?;
        let address = socket.local_addr()?;
        let (says, asked) = (Arc::new(Mutex::new(says)), Arc::new(AtomicU64::new(0)));
        let mut server = Server::new(Handler { says: says.clone(), asked: asked.clone() });
        server.register_socket(socket);
        Ok(NameServer { address, says, asked, _server: server })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes what it says.
    pub fn say(&self, says: Says) {
        *self.says.lock().unwrap_or_else(PoisonError::into_inner) = says;
    }

    /// How often it was asked.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }
}

// === impl Handler ===

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut respond: R,
    ) -> ResponseInfo {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let says = self.says.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut metadata = Metadata::response_from_request(&request.metadata);
        let Ok(question) = request.request_info() else { return info(metadata) };
        let name = question.query.original().name().clone();
        let asked_for = question.query.query_type();
        let mut records = Vec::new();
        match says {
            Says::Nothing => return info(metadata),
            Says::NoSuchName => metadata.response_code = ResponseCode::NXDomain,
            Says::Failure => metadata.response_code = ResponseCode::ServFail,
            Says::Addresses(addresses, ttl) => {
                let ttl = u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX);
                let of_kind = addresses
                    .into_iter()
                    .map(RData::from)
                    .filter(|data| data.record_type() == asked_for);
                records.extend(of_kind.map(|data| Record::from_rdata(name.clone(), ttl, data)));
            }
        }
        let response = MessageResponseBuilder::from_message_request(request);
        let none: [&Record; 0] = [];
        let response = response.build(metadata, &records, none, none, none);
        respond.send_response(response).await.unwrap_or_else(|_| info(metadata))
    }
}

/// What was said, for the server's own log.
fn info(metadata: Metadata) -> ResponseInfo {
    hickory_server::proto::op::Header { metadata, counts: Default::default() }.into()
}

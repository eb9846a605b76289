//! Small messages from daemon to daemon, on the connections that statements share: gRPC with a body
//! that only its reader understands.
//!
//! They are answered on the threads of the network: whoever takes them must be quick.

use std::convert::Infallible;
use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Buf, BufMut, Bytes};
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::{Context, Future, Pin, Poll, Service, http};
use tonic::server::{NamedService, UnaryService};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

/// The name of the service; the name of a method is the kind of the message.
const SERVICE: &str = "oribi.Messages";

/// Takes other daemons' messages.
#[async_trait]
pub trait Messages: Send + Sync + Debug + 'static {
    /// Takes a message of a kind, and answers it. `None`: the kind is not known.
    async fn receive(&self, kind: &str, body: Bytes) -> Option<Bytes>;
}

/// Why a message had no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NoAnswer {
    /// The other daemon is of a build that does not know such messages.
    #[error("it does not know such messages")]
    Unknown,
    #[error("{0}")]
    Failed(String),
}

/// Sends a message on a connection, and waits for the answer.
pub(super) async fn send(channel: Channel, kind: &str, body: Bytes) -> Result<Bytes, NoAnswer> {
    let failed = |reason: String| NoAnswer::Failed(reason);
    let path = format!("/{SERVICE}/{kind}").parse::<http::uri::PathAndQuery>();
    let path = path.map_err(|error| failed(error.to_string()))?;
    let mut client = Grpc::new(channel);
    client.ready().await.map_err(|error| failed(error.to_string()))?;
    match client.unary(Request::new(body), path, Plain).await {
        Ok(answer) => Ok(answer.into_inner()),
        Err(status) if status.code() == Code::Unimplemented => Err(NoAnswer::Unknown),
        Err(status) => Err(failed(status.message().to_owned())),
    }
}

/// The service at the port for daemons.
#[derive(Clone)]
pub(super) struct Receiver(pub Arc<dyn Messages>);

impl NamedService for Receiver {
    const NAME: &'static str = SERVICE;
}

type Answer<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

impl Service<http::Request<Body>> for Receiver {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let kind = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        let messages = self.0.clone();
        Box::pin(async move {
            let mut server = tonic::server::Grpc::new(Plain);
            Ok(server.unary(Method { kind, messages }, request).await)
        })
    }
}

struct Method {
    kind: String,
    messages: Arc<dyn Messages>,
}

impl UnaryService<Bytes> for Method {
    type Response = Bytes;
    type Future = Answer<Response<Bytes>, Status>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let (kind, messages) = (self.kind.clone(), self.messages.clone());
        Box::pin(async move {
            let answer = messages.receive(&kind, request.into_inner()).await;
            answer.map(Response::new).ok_or_else(|| Status::unimplemented(kind))
        })
    }
}

/// Bytes as they are.
#[derive(Clone, Copy)]
struct Plain;

impl Codec for Plain {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

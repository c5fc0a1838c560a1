//! Makes a connection: name, TCP, TLS, HTTP/2. And remembers why one broke, which the HTTP/2 library forgets.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::tls::{Credentials, HTTP2};
use crate::trouble::{Found, Trouble};

/// Makes the connections to one address.
pub(crate) struct Connector {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// The name that the server's certificate must be for.
    pub(crate) server_name: ServerName<'static>,
    pub(crate) credentials: Arc<Credentials>,
    /// For all steps together.
    pub(crate) limit: Duration,
    pub(crate) last_break: LastBreak,
}

impl Connector {
    pub(crate) async fn connect(&self) -> Result<TokioIo<Connection>, Found> {
        let credentials = self.credentials.clone();
        let config = tokio::task::spawn_blocking(move || credentials.refresh())
            .await
            .map_err(|error| Found::new(Trouble::Failed, error.to_string()))?;
        match timeout(self.limit, self.connect_with(config)).await {
            Ok(connected) => connected.map(TokioIo::new),
            Err(_) => Err(Found::new(Trouble::ConnectTimeout, format!("no connection in {:?}", self.limit))),
        }
    }

    async fn connect_with(&self, config: Arc<ClientConfig>) -> Result<Connection, Found> {
        let tcp = self.connect_tcp().await?;
        // Else small messages wait for acknowledgements of earlier ones.
        tcp.set_nodelay(true).map_err(|error| Found::of_io(&error))?;
        let tls = TlsConnector::from(config)
            .connect(self.server_name.clone(), tcp)
            .await
            .map_err(|error| Found::of_io(&error))?;
        if tls.get_ref().1.alpn_protocol() != Some(HTTP2) {
            return Err(Found::new(Trouble::NoHttp2, "HTTP/2 was not negotiated"));
        }
        Ok(Connection { tls, last_break: self.last_break.clone() })
    }

    /// Tries one address of the host after the other; each has its share of the time, so that one that swallows
    /// packets does not hide the next.
    async fn connect_tcp(&self) -> Result<TcpStream, Found> {
        let addresses: Vec<_> = lookup_host((self.host.as_str(), self.port))
            .await
            .map_err(|error| Found::new(Trouble::HostUnknown, error.to_string()))?
            .collect();
        let share = self.limit / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
        let mut failed = Found::new(Trouble::HostUnknown, "the host's name has no address");
        for address in addresses {
            match timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(tcp)) => return Ok(tcp),
                Ok(Err(error)) => failed = Found::of_io(&error),
                Err(_) => failed = Found::new(Trouble::ConnectTimeout, format!("{address} does not answer")),
            }
        }
        Err(failed)
    }
}

/// Why the last connection broke, until an answer comes on one.
///
/// In TLS 1.3 a server judges the client's certificate when the client has long begun to send: its alert breaks a
/// connection that was made. The HTTP/2 library hands on only the text of that, so it is kept here.
#[derive(Clone, Default)]
pub(crate) struct LastBreak(Arc<Mutex<Option<(Trouble, String)>>>);

impl LastBreak {
    fn note(&self, error: &io::Error) {
        let trouble = Trouble::of_io(error);
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // What TLS said is not hidden by the closing that follows it.
        if trouble.kind() != crate::ErrorKind::Connection || last.is_none() {
            *last = Some((trouble, error.to_string()));
        }
    }

    pub(crate) fn found(&self) -> Option<Found> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().map(|(trouble, text)| Found::new(*trouble, text))
    }

    pub(crate) fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// A connection that was made.
pub(crate) struct Connection {
    tls: TlsStream<TcpStream>,
    last_break: LastBreak,
}

impl Connection {
    fn note<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &polled {
            self.last_break.note(error);
        }
        polled
    }

    /// Notes why writing failed. Who closes a connection says why before, which lies there to be read.
    fn note_write<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(_)) = &polled {
            let mut rest = [0; 4096];
            // Bounded; nobody else will read what there is.
            for _ in 0..READS_MAX {
                let mut rest = ReadBuf::new(&mut rest);
                match Pin::new(&mut self.tls).poll_read(cx, &mut rest) {
                    Poll::Ready(Ok(())) if !rest.filled().is_empty() => {}
                    Poll::Ready(Err(error)) => {
                        self.last_break.note(&error);
                        break;
                    }
                    Poll::Ready(Ok(())) | Poll::Pending => break,
                }
            }
        }
        self.note(polled)
    }
}

/// As much as is looked through for a reason: 64 KiB.
const READS_MAX: usize = 16;

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.tls).poll_read(cx, buf);
        self.note(polled)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.tls).poll_write(cx, buf);
        self.note_write(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.tls).poll_write_vectored(cx, bufs);
        self.note_write(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.tls).poll_flush(cx);
        self.note_write(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::{Pem, Sources};
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::crypto::ring::default_provider;
    use tokio_rustls::rustls::pki_types::PrivateKeyDer;
    use tokio_rustls::rustls::server::WebPkiClientVerifier;
    use tokio_rustls::rustls::{RootCertStore, ServerConfig};
    use zeroize::Zeroizing;

    /// The HTTP/2 library writes before it reads when it has something to write.
    #[tokio::test]
    async fn why_the_server_closed_is_read_when_writing_fails() {
        let [ours, other] = [(); 2].map(|()| rcgen::generate_simple_self_signed(["kms".to_owned()]).unwrap());
        let mut trusted = RootCertStore::empty();
        trusted.add(other.cert.der().clone()).unwrap();
        let provider = Arc::new(default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(trusted), provider.clone()).build().unwrap();
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                vec![ours.cert.der().clone()],
                PrivateKeyDer::try_from(ours.signing_key.serialize_der()).unwrap(),
            )
            .unwrap();
        server.alpn_protocols = vec![HTTP2.to_vec()];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = tokio::spawn(async move {
            let (tcp, _) = listener.accept().await.unwrap();
            let (_, tcp) = TlsAcceptor::from(Arc::new(server)).accept(tcp).into_fallible().await.unwrap_err();
            tcp.set_zero_linger().unwrap();
        });
        let pem = |text: String| Pem::Bytes(Zeroizing::new(text.into_bytes()));
        let sources = Sources {
            ca: pem(ours.cert.pem()),
            certificate: pem(ours.cert.pem()),
            key: pem(ours.signing_key.serialize_pem()),
        };
        let connector = Connector {
            host: "127.0.0.1".to_owned(),
            port,
            server_name: ServerName::try_from("kms").unwrap(),
            credentials: Arc::new(Credentials::load(sources).unwrap()),
            limit: Duration::from_secs(10),
            last_break: LastBreak::default(),
        };
        let mut connection = connector.connect().await.unwrap().into_inner();
        serving.await.unwrap();
        while connection.write_all(b"x").await.is_ok() && connection.flush().await.is_ok() {}
        let found = connector.last_break.found().unwrap();
        assert_eq!(found.trouble.kind(), crate::ErrorKind::Unauthenticated, "{found:?}");
    }
}

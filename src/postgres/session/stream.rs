//! The socket under a session.
//!
//! It is ours and not the driver's, so that closing a session can wait for the end of file: the server closes its
//! end when the backend's process has ended and not before, and only then does the backend no longer stand
//! in the way of a rename or a drop of its database.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::postgres::target::Host;

/// An idle connection is probed after this time, this often, so many times, before it counts as lost.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(60), Duration::from_secs(10), 6);

/// What was sent and is not acknowledged within this time makes the connection count as lost.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(120);

/// Where a connection led, so that a cancellation finds the same server.
#[derive(Clone, Debug)]
pub(super) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// A connected socket.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// Connects to a host: to the first of its addresses that answers.
    pub(super) async fn connect(host: &Host) -> io::Result<(Stream, Address)> {
        if host.is_socket() {
            let path = Path::new(host.name()).join(format!(".s.PGSQL.{}", host.port()));
            let address = Address::Unix(path);
            return Ok((Stream::connect_to(&address).await?, address));
        }
        let addresses: Vec<SocketAddr> = match host.address() {
            Some(address) => vec![SocketAddr::new(address, host.port())],
            None => tokio::net::lookup_host((host.name(), host.port())).await?.collect(),
        };
        let mut last = io::Error::new(io::ErrorKind::NotFound, "failed to lookup address information: no address");
        for address in addresses.into_iter().map(Address::Tcp) {
            match Stream::connect_to(&address).await {
                Ok(stream) => return Ok((stream, address)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Connects to an address that was found before.
    pub(super) async fn connect_to(address: &Address) -> io::Result<Stream> {
        match address {
            Address::Unix(path) => Ok(Stream::Unix(UnixStream::connect(path).await?)),
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                let (idle, interval, count) = KEEPALIVE;
                sockopt::set_socket_keepalive(&stream, true)?;
                #[cfg(not(target_vendor = "apple"))]
                sockopt::set_tcp_keepidle(&stream, idle)?;
                sockopt::set_tcp_keepintvl(&stream, interval)?;
                sockopt::set_tcp_keepcnt(&stream, count)?;
                #[cfg(target_os = "linux")]
                sockopt::set_tcp_user_timeout(&stream, u32::try_from(UNACKNOWLEDGED.as_millis()).unwrap_or(u32::MAX))?;
                Ok(Stream::Tcp(stream))
            }
        }
    }

    /// A second handle to the same connection.
    pub(super) fn duplicate(self) -> io::Result<(Stream, Stream)> {
        Ok(match self {
            Stream::Tcp(stream) => {
                let first = stream.into_std()?;
                let second = first.try_clone()?;
                (Stream::Tcp(TcpStream::from_std(first)?), Stream::Tcp(TcpStream::from_std(second)?))
            }
            Stream::Unix(stream) => {
                let first = stream.into_std()?;
                let second = first.try_clone()?;
                (Stream::Unix(UnixStream::from_std(first)?), Stream::Unix(UnixStream::from_std(second)?))
            }
        })
    }

    /// Reads until the other end closes, or the connection breaks.
    pub(super) async fn until_closed(&mut self) {
        let mut buffer = [0; 512];
        while self.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Stream::Unix(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

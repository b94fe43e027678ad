//! Where a service is reached: a loopback address, a Unix socket that its owner alone can open, or an address with TLS.

use std::{
    fmt, fs,
    future::pending,
    io,
    net::SocketAddr,
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
        net::{SocketAddr as SocketAddress, UnixStream as StdUnixStream},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, server::WebPkiClientVerifier},
};

use super::Error;
use crate::{
    client::{self, Identity, SetUpError, Stream},
    file,
};

/// A certificate to show, and whose certificates to ask for.
#[derive(Clone)]
pub struct Tls(TlsAcceptor);

impl Tls {
    /// Reads a certificate, with those that lead to a root, and its key, both as PEM. With `client_ca` a client must show a
    /// certificate that leads to one of its roots.
    ///
    /// # Errors
    /// What cannot be used.
    pub fn read(cert: &Path, key: &Path, client_ca: Option<&Path>) -> Result<Self, SetUpError> {
        let identity = Identity { cert, key };
        let (certificates, private_key) = identity.read()?;
        let builder = ServerConfig::builder_with_provider(client::provider()).with_safe_default_protocol_versions()?;
        let builder = match client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let roots = Arc::new(client::roots(path)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, client::provider()).build();
                let unusable = |cause| SetUpError::CaFile { path: path.to_owned(), cause };
                builder.with_client_cert_verifier(verifier.map_err(|error| unusable(file::wrong(error.to_string())))?)
            }
        };
        let config = builder.with_single_cert(certificates, private_key);
        let mut config = config.map_err(|error| identity.refused(file::wrong(error.to_string())))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls(…)")
    }
}

/// Accepts connections for [`serve`](super::serve): on an address, on a socket, or on both.
#[derive(Debug, Default)]
pub struct Listener {
    tcp: Option<(TcpListener, SocketAddr)>,
    tls: Option<Tls>,
    unix: Option<(UnixListener, SocketFile)>,
}

/// Whether only this machine can reach an address.
pub(crate) fn is_loopback(address: SocketAddr) -> Result<(), Error> {
    if address.ip().to_canonical().is_loopback() { Ok(()) } else { Err(Error::NotLoopback(address)) }
}

impl Listener {
    /// Listens on an address that only this machine can reach.
    ///
    /// # Errors
    /// Another address, or one that cannot be had.
    pub async fn tcp(address: SocketAddr) -> Result<Self, Error> {
        is_loopback(address)?;
        Self::bind(address, None).await
    }

    /// Listens on any address, with TLS. What is served there must know its callers by itself.
    ///
    /// # Errors
    /// The address cannot be had.
    pub async fn tls(address: SocketAddr, tls: Tls) -> Result<Self, Error> {
        Self::bind(address, Some(tls)).await
    }

    async fn bind(address: SocketAddr, tls: Option<Tls>) -> Result<Self, Error> {
        let failed = |source| Error::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { tcp: Some((listener, address)), tls, unix: None })
    }

    /// Listens on a socket with mode 0600, which is removed when the listener is dropped. One that nobody listens on any
    /// more is replaced.
    ///
    /// # Errors
    /// Something else has this name, somebody listens there, or it cannot be made.
    pub fn unix(path: &Path) -> Result<Self, Error> {
        Self::default().and_unix(path)
    }

    /// Listens on a socket as well: see [`Self::unix`].
    ///
    /// # Errors
    /// Those of [`Self::unix`].
    pub fn and_unix(self, path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Socket { path: path.to_owned(), source };
        // Too long a path can be bound under a shorter one, and nobody could connect to it.
        SocketAddress::from_pathname(path).map_err(failed)?;
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => return Err(Error::NotSocket(path.to_owned())),
            Ok(_) if StdUnixStream::connect(path).is_ok() => return Err(Error::SocketTaken(path.to_owned())),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let parent = file::directory_of(path);
        // Made where nobody else can reach it, so that it has its mode before it has its name.
        let private = tempfile::Builder::new().prefix(".s").rand_bytes(4).tempdir_in(parent).map_err(failed)?;
        let made = private.path().join("s");
        let listener = UnixListener::bind(&made).map_err(failed)?;
        fs::set_permissions(&made, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        let identity = identity(&made).map_err(failed)?;
        fs::rename(&made, path).map_err(failed)?;
        Ok(Self { unix: Some((listener, SocketFile { path: path.to_owned(), identity })), ..self })
    }

    /// The TCP address, where it has one.
    pub fn address(&self) -> Option<SocketAddr> {
        self.tcp.as_ref().map(|(_, address)| *address)
    }

    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        let tcp = async {
            match &self.tcp {
                Some((listener, _)) => {
                    let (stream, _) = listener.accept().await?;
                    Ok(match &self.tls {
                        None => Accepted::Tcp(stream),
                        Some(tls) => Accepted::Tls(stream, tls.clone()),
                    })
                }
                None => pending().await,
            }
        };
        let unix = async {
            match &self.unix {
                Some((listener, _)) => listener.accept().await.map(|(stream, _)| Accepted::Unix(stream)),
                None => pending().await,
            }
        };
        tokio::select! {
            accepted = tcp => accepted,
            accepted = unix => accepted,
        }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((_, address)) = &self.tcp {
            let scheme = if self.tls.is_some() { "https" } else { "http" };
            write!(f, "{scheme}://{address}")?;
        }
        if self.tcp.is_some() && self.unix.is_some() {
            f.write_str(" and ")?;
        }
        if let Some((_, file)) = &self.unix {
            write!(f, "unix:{}", file.path.display())?;
        }
        Ok(())
    }
}

/// Device and inode: what tells a socket from another that took its name.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            // One that is left behind is replaced by the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A connection as it came in.
pub(super) enum Accepted {
    Tcp(TcpStream),
    /// Before the handshake.
    Tls(TcpStream, Tls),
    Unix(UnixStream),
}

impl Accepted {
    /// What HTTP is spoken on, once a handshake is over that there may have to be.
    pub(super) async fn into_stream(self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Tcp(stream) => {
                let _ = stream.set_nodelay(true); // an answer is one write: it shall not wait for an acknowledgement
                Box::new(stream)
            }
            Self::Tls(stream, Tls(tls)) => {
                let _ = stream.set_nodelay(true);
                Box::new(tls.accept(stream).await?)
            }
            Self::Unix(stream) => Box::new(stream),
        })
    }

    /// Sends `answer` and closes, without a timer or a wait: it must cost less than what it protects.
    ///
    /// A fresh connection has an empty send buffer, so one write sends everything. What the client has sent already is
    /// read first, because closing a socket with unread bytes makes the kernel throw the answer away.
    pub(super) fn refuse(self, answer: &[u8]) {
        match self {
            Self::Tcp(stream) => {
                let Ok(stream) = stream.into_std() else { return };
                let _ = io::Write::write(&mut &stream, answer);
                let _ = stream.shutdown(std::net::Shutdown::Write);
                let _ = io::Read::read(&mut &stream, &mut [0; 4096]);
            }
            // It could only be told after a handshake, which is what there are too many of.
            Self::Tls(..) => {}
            Self::Unix(stream) => {
                let Ok(stream) = stream.into_std() else { return };
                let _ = io::Write::write(&mut &stream, answer);
                let _ = stream.shutdown(std::net::Shutdown::Write);
                let _ = io::Read::read(&mut &stream, &mut [0; 4096]);
            }
        }
    }
}

//! A network that fails: a TCP proxy whose connections can be cut, or left open to lead nowhere.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

/// What becomes of a connection that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Carried,
    /// It stays open, and nothing that is said on it arrives: no end of the stream, no reset.
    Swallowed,
    Cut,
}

/// A proxy before a port of 127.0.0.1. It ends with its runtime.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    target: Arc<Mutex<u16>>,
    /// Of the connections that were made since the last change.
    fate: Mutex<watch::Sender<Fate>>,
    newest: Arc<Mutex<watch::Receiver<Fate>>>,
}

impl Proxy {
    /// One before `target`.
    ///
    /// # Errors
    ///
    /// If the loopback interface has no port left.
    pub async fn start(target: u16) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let (fate, newest) = watch::channel(Fate::Carried);
        let (target, newest) = (Arc::new(Mutex::new(target)), Arc::new(Mutex::new(newest)));
        let (now, fates) = (Arc::clone(&target), Arc::clone(&newest));
        tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((client, _)) => {
                        let (target, fate) = (*lock(&now), lock(&fates).clone());
                        drop(tokio::spawn(carry(client, target, fate)));
                    }
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        });
        Ok(Self { port, target, fate: Mutex::new(fate), newest })
    }

    /// Its port of 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// New connections lead to another port; those that are there stay.
    pub fn lead_to(&self, target: u16) {
        *lock(&self.target) = target;
    }

    /// The connections that are there lead nowhere any more, without a word; new ones work.
    pub fn swallow(&self) {
        self.end(Fate::Swallowed);
    }

    /// The connections that are there end; new ones work.
    pub fn cut(&self) {
        self.end(Fate::Cut);
    }

    fn end(&self, fate: Fate) {
        let (next, seen) = watch::channel(Fate::Carried);
        *lock(&self.newest) = seen;
        let last = std::mem::replace(&mut *lock(&self.fate), next);
        last.send_replace(fate);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Carries both ways until one end closes or the connection is cut.
async fn carry(client: TcpStream, target: u16, fate: watch::Receiver<Fate>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else { return };
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let mut end = fate.clone();
    // The sender of a connection's fate is dropped once it is decided: what was decided holds.
    let cut = async {
        if end.wait_for(|fate| *fate == Fate::Cut).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = async { tokio::join!(pipe(from_client, to_server, fate.clone()), pipe(from_server, to_client, fate)); } => {}
        () = cut => {}
    }
}

async fn pipe(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, fate: watch::Receiver<Fate>) {
    let mut piece = vec![0; 16 * 1024];
    loop {
        let length = from.read(&mut piece).await.unwrap_or(0);
        if *fate.borrow() == Fate::Swallowed {
            // The other end hears nothing, not even that this one has gone.
            std::future::pending::<()>().await;
        }
        if length == 0 || to.write_all(&piece[..length]).await.is_err() {
            let _ = to.shutdown().await;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    /// A port that answers each byte with the same.
    async fn echo() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("it is bound").port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        port
    }

    async fn ask(stream: &mut TcpStream) -> std::io::Result<u8> {
        stream.write_all(b"x").await?;
        stream.read_u8().await
    }

    #[tokio::test]
    async fn what_is_swallowed_stays_open_and_new_connections_work() {
        let proxy = Proxy::start(echo().await).await.expect("a port");
        let mut old = TcpStream::connect(("127.0.0.1", proxy.port())).await.expect("it listens");
        assert_eq!(ask(&mut old).await.ok(), Some(b'x'));
        proxy.swallow();
        assert!(timeout(Duration::from_millis(200), ask(&mut old)).await.is_err(), "neither an answer nor an end");
        let mut new = TcpStream::connect(("127.0.0.1", proxy.port())).await.expect("it listens");
        assert_eq!(ask(&mut new).await.ok(), Some(b'x'));
    }

    #[tokio::test]
    async fn what_is_cut_ends() {
        let proxy = Proxy::start(echo().await).await.expect("a port");
        let mut old = TcpStream::connect(("127.0.0.1", proxy.port())).await.expect("it listens");
        assert_eq!(ask(&mut old).await.ok(), Some(b'x'));
        proxy.cut();
        assert!(ask(&mut old).await.is_err());
        let mut new = TcpStream::connect(("127.0.0.1", proxy.port())).await.expect("it listens");
        assert_eq!(ask(&mut new).await.ok(), Some(b'x'));
    }
}

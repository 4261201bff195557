//! The network of a replica, to the database or to the upstream: a TCP proxy that cuts, stalls, delays, loses what goes
//! one way, and can be led to another address.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream, lookup_host,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    time::sleep,
};

/// What the network does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weather {
    /// It carries.
    Fair,
    /// It carries each piece after a delay.
    Slow(Duration),
    /// It keeps connections and carries nothing; what was sent arrives later.
    Stalled,
    /// It keeps connections, and what the replica sends is lost.
    RequestsLost,
    /// It keeps connections, and what the other side answers is lost.
    AnswersLost,
    /// It has no connections.
    Cut,
}

/// Which way something is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Request,
    Answer,
}

impl Weather {
    fn loses(self, way: Way) -> bool {
        matches!((self, way), (Self::RequestsLost, Way::Request) | (Self::AnswersLost, Way::Answer))
    }
}

/// A proxy. It ends with its runtime.
#[derive(Debug)]
pub(crate) struct Proxy {
    port: u16,
    weather: watch::Sender<Weather>,
    target: watch::Sender<SocketAddr>,
}

impl Proxy {
    /// One before an address, which new connections are led to.
    pub(crate) async fn start(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let (weather, seen) = watch::channel(Weather::Fair);
        let (target, led_to) = watch::channel(target);
        tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((client, _)) if *seen.borrow() != Weather::Cut => {
                        drop(tokio::spawn(carry(client, *led_to.borrow(), seen.clone())));
                    }
                    Ok(_) => {}
                    // Out of descriptors, say: it passes.
                    Err(_) => sleep(Duration::from_millis(50)).await,
                }
            }
        });
        Ok(Self { port, weather, target })
    }

    /// Where it listens on loopback.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Changes the weather.
    pub(crate) fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// Leads new connections elsewhere; those that there are stay where they are.
    pub(crate) fn lead_to(&self, target: SocketAddr) {
        self.target.send_replace(target);
    }
}

/// The address of a host by name.
pub(crate) async fn resolve(host: &str, port: u16) -> Result<SocketAddr> {
    let mut found = lookup_host((host, port)).await.with_context(|| format!("cannot look up {host}"))?;
    found.next().with_context(|| format!("{host} has no address"))
}

/// Carries both ways until one end closes or the connection is cut.
async fn carry(client: TcpStream, target: SocketAddr, weather: watch::Receiver<Weather>) {
    let Ok(server) = TcpStream::connect(target).await else { return };
    // Small answers are not to wait for each other's acknowledgements.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let mut cut = weather.clone();
    tokio::select! {
        () = pipe(Way::Request, from_client, to_server, weather.clone()) => {}
        () = pipe(Way::Answer, from_server, to_client, weather) => {}
        _ = cut.wait_for(|weather| *weather == Weather::Cut) => {}
    }
}

async fn pipe(way: Way, mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut weather: watch::Receiver<Weather>) {
    let mut piece = vec![0; 16 * 1024];
    let mut lost = false;
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        let now = match weather.wait_for(|weather| *weather != Weather::Stalled).await {
            Ok(now) => *now,
            Err(_) => return,
        };
        lost |= now.loses(way);
        if lost {
            // Nothing that follows makes sense to the other end without it: with fair weather the connection ends.
            if now.loses(way) {
                continue;
            }
            return;
        }
        if let Weather::Slow(delay) = now {
            sleep(delay).await;
        }
        if to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that answers each byte with the next one; the proxy before it.
    async fn echo(plus: u8) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it has one");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    while let Ok(byte) = stream.read_u8().await {
                        if stream.write_u8(byte + plus).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        address
    }

    async fn connect(proxy: &Proxy) -> TcpStream {
        TcpStream::connect(("127.0.0.1", proxy.port())).await.expect("it listens")
    }

    async fn ask(stream: &mut TcpStream, byte: u8) -> Option<u8> {
        stream.write_u8(byte).await.ok()?;
        stream.read_u8().await.ok()
    }

    #[tokio::test]
    async fn a_lost_answer_is_never_made_up_for_and_the_connection_ends_with_the_weather() {
        let proxy = Proxy::start(echo(1).await).await.expect("it starts");
        let mut stream = connect(&proxy).await;
        assert_eq!(ask(&mut stream, 1).await, Some(2));
        for weather in [Weather::AnswersLost, Weather::RequestsLost] {
            let mut stream = connect(&proxy).await;
            assert_eq!(ask(&mut stream, 1).await, Some(2));
            proxy.set(weather);
            stream.write_u8(7).await.expect("it is taken");
            let silent = tokio::time::timeout(Duration::from_millis(100), stream.read_u8()).await;
            assert!(silent.is_err(), "{weather:?}: {silent:?}");
            proxy.set(Weather::Fair);
            assert_eq!(ask(&mut stream, 8).await, None, "{weather:?}");
            assert_eq!(ask(&mut connect(&proxy).await, 3).await, Some(4));
        }
    }

    #[tokio::test]
    async fn a_stall_loses_nothing_and_a_cut_ends_connections() {
        let proxy = Proxy::start(echo(1).await).await.expect("it starts");
        let mut stream = connect(&proxy).await;
        proxy.set(Weather::Stalled);
        stream.write_u8(1).await.expect("it is taken");
        assert!(tokio::time::timeout(Duration::from_millis(50), stream.read_u8()).await.is_err());
        proxy.set(Weather::Fair);
        assert_eq!(stream.read_u8().await.ok(), Some(2));
        proxy.set(Weather::Cut);
        assert_eq!(ask(&mut stream, 1).await, None);
        assert_eq!(ask(&mut connect(&proxy).await, 1).await, None);
    }

    #[tokio::test]
    async fn new_connections_are_led_elsewhere_and_old_ones_stay() {
        let proxy = Proxy::start(echo(1).await).await.expect("it starts");
        let mut old = connect(&proxy).await;
        assert_eq!(ask(&mut old, 1).await, Some(2));
        proxy.lead_to(echo(2).await);
        assert_eq!(ask(&mut old, 1).await, Some(2));
        assert_eq!(ask(&mut connect(&proxy).await, 1).await, Some(3));
    }
}

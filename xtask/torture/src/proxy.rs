//! The network between a replica and the database: a TCP proxy that cuts, stalls and delays.

use std::time::Duration;

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
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
    /// It keeps connections and carries nothing.
    Stalled,
    /// It has no connections.
    Cut,
}

/// A proxy. It ends with its runtime.
#[derive(Debug)]
pub(crate) struct Proxy {
    port: u16,
    weather: watch::Sender<Weather>,
}

impl Proxy {
    /// One before a port of loopback.
    pub(crate) async fn start(host: String, port: u16) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let own = listener.local_addr()?.port();
        let (weather, seen) = watch::channel(Weather::Fair);
        tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((client, _)) if *seen.borrow() != Weather::Cut => {
                        drop(tokio::spawn(carry(client, host.clone(), port, seen.clone())));
                    }
                    Ok(_) => {}
                    Err(_) => sleep(Duration::from_millis(50)).await,
                }
            }
        });
        Ok(Self { port: own, weather })
    }

    /// Where it listens on loopback.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Changes the weather.
    pub(crate) fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }
}

/// Carries both ways until one end closes or the connection is cut.
async fn carry(client: TcpStream, host: String, port: u16, weather: watch::Receiver<Weather>) {
    let Ok(server) = TcpStream::connect((host, port)).await else { return };
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let mut cut = weather.clone();
    tokio::select! {
        () = pipe(from_client, to_server, weather.clone()) => {}
        () = pipe(from_server, to_client, weather) => {}
        _ = cut.wait_for(|weather| *weather == Weather::Cut) => {}
    }
}

async fn pipe(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut weather: watch::Receiver<Weather>) {
    let mut piece = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        let now = match weather.wait_for(|weather| *weather != Weather::Stalled).await {
            Ok(now) => *now,
            Err(_) => return,
        };
        if let Weather::Slow(delay) = now {
            sleep(delay).await;
        }
        if to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
}

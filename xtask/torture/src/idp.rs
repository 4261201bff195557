//! The identity provider of the run: a token endpoint over raw sockets, so that it can answer fast, slowly, never, or
//! cut the connection after it has rotated, and knows whether an answer was taken.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    time::{sleep, timeout},
};
use url::form_urlencoded;

use crate::{
    history::{Event, History},
    truth::{Redeemed, Truth},
};

/// How many faulty answers one credential gets in a row at most: the broker's backoff doubles with each.
const FAULTS_IN_A_ROW: u32 = 2;

/// How long a call whose replica is to be hurt is held up, so that the blow falls at this very step.
const BLOW: Duration = Duration::from_millis(40);

/// A step of a call, as the upstream sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// The request is there.
    Received,
    /// The refresh token was replaced, and nobody knows yet.
    Rotated,
    /// The answer was written.
    Answered,
}

/// How a call is answered.
#[derive(Clone, Copy, Debug)]
enum Manner {
    /// Redeemed after the first pause, answered after the second.
    Answer(Duration, Duration),
    /// 503 with Retry-After, before anything was done.
    Shed,
    /// Redeemed, and the connection cut.
    Lost,
    /// Never answered; redeemed or not.
    Never { redeemed: bool },
}

/// The identity provider. It ends with its runtime.
#[derive(Debug)]
pub(crate) struct IdentityProvider {
    truth: Arc<Truth>,
    history: History,
    faults: AtomicBool,
    /// It takes no calls: connections are closed at once.
    down: AtomicBool,
    /// Calls that come to this step go no further.
    hold: watch::Sender<Option<Step>>,
    state: Mutex<State>,
    blows: mpsc::UnboundedSender<(Step, usize)>,
}

#[derive(Debug)]
struct State {
    rng: StdRng,
    in_a_row: Vec<u32>,
    armed: Option<Step>,
    manners: [u64; 5],
    /// The credentials of which a call was held up: the next ones go through.
    held: HashSet<usize>,
}

impl IdentityProvider {
    /// One that tells of each step at which a replica is to be hurt.
    pub(crate) fn new(
        truth: Arc<Truth>,
        history: History,
        seed: u64,
        blows: mpsc::UnboundedSender<(Step, usize)>,
    ) -> Arc<Self> {
        let in_a_row = vec![0; truth.credentials().len()];
        let state =
            State { rng: StdRng::seed_from_u64(seed), in_a_row, armed: None, manners: [0; 5], held: HashSet::new() };
        let (faults, down, hold) = (AtomicBool::new(false), AtomicBool::new(false), watch::Sender::new(None));
        Arc::new(Self { truth, history, faults, down, hold, state: Mutex::new(state), blows })
    }

    /// Listens for the calls of one replica; the port.
    pub(crate) async fn listen(self: &Arc<Self>, replica: usize) -> Result<u16> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let this = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok(_) if this.down.load(Ordering::Relaxed) => {}
                    Ok((stream, _)) => drop(tokio::spawn(Arc::clone(&this).serve(replica, stream))),
                    // Out of descriptors, say: it passes.
                    Err(_) => sleep(Duration::from_millis(50)).await,
                }
            }
        });
        Ok(port)
    }

    /// Begins or ends to answer in odd ways.
    pub(crate) fn set_faults(&self, on: bool) {
        self.faults.store(on, Ordering::Relaxed);
    }

    /// Goes down, so that nobody gets an answer, or comes up again.
    pub(crate) fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::Relaxed);
    }

    /// Of each credential, holds up the next call that comes to `step`; `None` lets go of all.
    pub(crate) fn hold(&self, step: Option<Step>) {
        self.state().held.clear();
        self.hold.send_replace(step);
    }

    /// Of how many credentials a call was held up.
    pub(crate) fn held(&self) -> usize {
        self.state().held.len()
    }

    /// The next rotation that comes to this step costs its replica dearly.
    pub(crate) fn arm(&self, step: Option<Step>) {
        self.state().armed = step;
    }

    /// How many calls were answered well or slowly, shed, lost after rotation, left hanging before it, after it.
    pub(crate) fn manners(&self) -> [u64; 5] {
        self.state().manners
    }

    async fn serve(self: Arc<Self>, replica: usize, mut stream: TcpStream) {
        let Ok(Ok(form)) = timeout(Duration::from_secs(30), read_form(&mut stream)).await else { return };
        let field = |name: &str| form.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        let credential = field("client_id").and_then(|name| self.truth.number(&name));
        let Some(credential) = credential else {
            let _ = write(&mut stream, 401, "", &json!({ "error": "invalid_client" }).to_string()).await;
            return;
        };
        let call = self.truth.receive(replica, credential, field("refresh_token"));
        let seen = Seen { idp: &self, replica, credential, call, refresh: field("refresh_token").unwrap_or_default() };
        let delivered = seen.answer(stream).await;
        self.truth.end(call, delivered);
        seen.tell(if delivered { "taken" } else { "not taken" });
    }

    fn choose(&self, credential: usize) -> Manner {
        let mut guard = self.state();
        let state = &mut *guard;
        let short = Duration::from_millis(state.rng.random_range(1..8));
        let long = Duration::from_millis(state.rng.random_range(200..2500));
        let dice = if self.faults.load(Ordering::Relaxed) { state.rng.random_range(0..100) } else { 100 };
        let in_a_row = &mut state.in_a_row[credential];
        if dice >= 19 || *in_a_row >= FAULTS_IN_A_ROW {
            *in_a_row = 0;
            state.manners[0] += 1;
            return Manner::Answer(short, Duration::ZERO);
        }
        // A slow answer is none that counts as a failure.
        *in_a_row += u32::from(dice >= 8);
        let (kind, manner) = match dice {
            0..4 => (0, Manner::Answer(long, Duration::ZERO)),
            4..8 => (0, Manner::Answer(short, long)),
            8..12 => (1, Manner::Shed),
            12..16 => (2, Manner::Lost),
            16..18 => (3, Manner::Never { redeemed: false }),
            _ => (4, Manner::Never { redeemed: true }),
        };
        state.manners[kind] += 1;
        manner
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One call under way.
struct Seen<'a> {
    idp: &'a IdentityProvider,
    replica: usize,
    credential: usize,
    call: usize,
    refresh: String,
}

impl Seen<'_> {
    /// Answers in some manner. Whether the caller took the whole answer.
    async fn answer(&self, mut stream: TcpStream) -> bool {
        self.tell("received");
        self.reach(Step::Received).await;
        if !self.pass(Step::Received, &mut stream).await {
            return false;
        }
        match self.idp.choose(self.credential) {
            Manner::Answer(before, after) => {
                sleep(before).await;
                let redeemed = self.redeem();
                self.reach(Step::Rotated).await;
                if !self.pass(Step::Rotated, &mut stream).await {
                    return false;
                }
                sleep(after).await;
                self.write(stream, redeemed).await
            }
            Manner::Shed => {
                self.tell("shed");
                let _ = write(&mut stream, 503, "retry-after: 1\r\n", "{}").await;
                false
            }
            Manner::Lost => {
                self.redeem();
                self.reach(Step::Rotated).await;
                self.tell("cut");
                false
            }
            Manner::Never { redeemed } => {
                if redeemed {
                    self.redeem();
                    self.reach(Step::Rotated).await;
                }
                self.tell("hanging");
                let _ = timeout(Duration::from_secs(30), stream.read_u8()).await;
                false
            }
        }
    }

    /// Waits while calls are held up at this step. False: the caller has gone meanwhile.
    async fn pass(&self, step: Step, stream: &mut TcpStream) -> bool {
        let mut hold = self.idp.hold.subscribe();
        if *hold.borrow() != Some(step) || !self.idp.state().held.insert(self.credential) {
            return true;
        }
        self.tell("held up");
        tokio::select! {
            _ = hold.wait_for(|hold| *hold != Some(step)) => true,
            _ = stream.read_u8() => {
                self.tell("given up");
                false
            }
        }
    }

    async fn write(&self, mut stream: TcpStream, redeemed: Redeemed) -> bool {
        let (status, body) = match redeemed {
            Redeemed::Tokens { access, refresh, lifetime } => {
                let expires_in = Duration::from_millis(u64::try_from(lifetime).unwrap_or(0)).as_secs_f64();
                let mut body = json!({ "access_token": access, "token_type": "Bearer", "expires_in": expires_in });
                if let Some(refresh) = refresh {
                    body["refresh_token"] = refresh.into();
                }
                (200, body)
            }
            Redeemed::InvalidGrant => (400, json!({ "error": "invalid_grant" })),
        };
        // A caller that was killed has closed its end by now, and the answer would vanish without an error.
        let gone = timeout(Duration::from_millis(1), stream.read(&mut [0; 1])).await.is_ok();
        let written = write(&mut stream, status, "", &body.to_string()).await.is_ok() && !gone;
        self.reach(Step::Answered).await;
        // A caller that ended with the answer unread resets the connection.
        let closed = timeout(Duration::from_secs(10), stream.read(&mut [0; 1])).await;
        written && matches!(closed, Ok(Ok(0)))
    }

    fn redeem(&self) -> Redeemed {
        let redeemed = self.idp.truth.redeem(self.call);
        self.tell(match &redeemed {
            Redeemed::InvalidGrant => "refused",
            Redeemed::Tokens { .. } => "redeemed",
        });
        redeemed
    }

    /// If the next rotation's replica is to be hurt at this step, tells who it is.
    async fn reach(&self, step: Step) {
        if !self.idp.truth.credentials()[self.credential].mode.rotates() {
            return;
        }
        let armed = self.idp.state().armed.take_if(|armed| *armed == step).is_some();
        if armed && self.idp.blows.send((step, self.replica)).is_ok() && step != Step::Answered {
            sleep(BLOW).await;
        }
    }

    fn tell(&self, step: &str) {
        let credential = self.idp.truth.credentials()[self.credential].name.clone();
        // Enough to tell them apart; they are worth nothing outside the run.
        let refresh = self.refresh.chars().take(11).collect();
        let (call, replica, step) = (self.call, self.replica, step.to_owned());
        self.idp.history.add(Event::Upstream { call, replica, credential, refresh, step });
    }
}

/// The form of a whole request.
async fn read_form(stream: &mut TcpStream) -> std::io::Result<Vec<(String, String)>> {
    let mut received = Vec::new();
    loop {
        if stream.read_buf(&mut received).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let text = String::from_utf8_lossy(&received);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let lengths = head.lines().filter_map(|line| line.split_once(':'));
        let length = lengths
            .filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .filter_map(|(_, value)| value.trim().parse().ok())
            .next_back()
            .unwrap_or(0);
        if body.len() >= length {
            return Ok(form_urlencoded::parse(body.as_bytes()).into_owned().collect());
        }
    }
}

async fn write(stream: &mut TcpStream, status: u16, headers: &str, body: &str) -> std::io::Result<()> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\n{headers}connection: close\r\n\
         content-length: {length}\r\n\r\n"
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await?;
    stream.shutdown().await
}

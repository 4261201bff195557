//! The generator is honest: what it reports is what the server did.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::Result;
use prost::Message as _;
use tokencache_proto::v1::{
    GetTokenRequest, GetTokenResponse, InvalidateTokenRequest, InvalidateTokenResponse, Token, WatchTokensRequest,
    WatchTokensResponse,
    token_service_server::{TokenService, TokenServiceServer},
};
use tokio::{runtime::Runtime, time::sleep};
use tokio_stream::{Empty, wrappers::TcpListenerStream};
use tonic::{Request, Response, Status, transport::Server};

use super::*;
use crate::{
    talk::{Http2, http2::Calls},
    upstream::{TOKEN, token},
};

/// How often the server did what.
#[derive(Debug, Default)]
struct Done {
    right: AtomicU64,
    refused: AtomicU64,
    foreign: AtomicU64,
    cut_short: AtomicU64,
    empty: AtomicU64,
}

/// A server that goes wrong for some keys.
#[derive(Clone, Debug, Default)]
struct Faulty {
    done: Arc<Done>,
    /// Of keys from this one on answers take so long.
    cold: Option<(u32, Duration)>,
}

#[tonic::async_trait]
impl TokenService for Faulty {
    async fn get_token(&self, request: Request<GetTokenRequest>) -> Result<Response<GetTokenResponse>, Status> {
        let key: u32 = request.get_ref().credential[1..].parse().expect("a key");
        if let Some((from, delay)) = self.cold
            && key >= from
        {
            sleep(delay).await;
        }
        let (count, text) = match key % 10 {
            1 => {
                self.done.refused.fetch_add(1, Ordering::Relaxed);
                return Err(Status::permission_denied("not for you, and a text that takes its time to be read"));
            }
            2 => (&self.done.foreign, token(&format!("{:08}", key + 1))),
            3 => (&self.done.cut_short, token(&format!("{key:08}"))[..TOKEN - 1].to_owned()),
            4 => (&self.done.empty, String::new()),
            _ => (&self.done.right, token(&format!("{key:08}"))),
        };
        count.fetch_add(1, Ordering::Relaxed);
        Ok(Response::new(GetTokenResponse {
            token: Some(Token { access_token: text, ..Default::default() }),
            ..Default::default()
        }))
    }

    type WatchTokensStream = Empty<Result<WatchTokensResponse, Status>>;

    async fn watch_tokens(&self, _: Request<WatchTokensRequest>) -> Result<Response<Self::WatchTokensStream>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn invalidate_token(
        &self,
        _: Request<InvalidateTokenRequest>,
    ) -> Result<Response<InvalidateTokenResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }
}

/// Serves in a runtime of its own; it ends with it.
fn serve(service: Faulty) -> (Runtime, SocketAddr) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port");
    let address = listener.local_addr().expect("an address");
    let incoming = TcpListenerStream::new(listener);
    runtime.spawn(Server::builder().add_service(TokenServiceServer::new(service)).serve_with_incoming(incoming));
    (runtime, address)
}

fn calls() -> Calls {
    let request = GetTokenRequest { credential: "k########".into(), ..Default::default() };
    Calls::grpc("http", "/tokencache.v1.TokenService/GetToken", &request.encode_to_vec(), Some(TOKEN))
}

fn plan(address: SocketAddr, pace: Pace, keys: Keys) -> Plan {
    let mut plan = Plan::new(address, None, (4, 8), pace, keys);
    (plan.warm_up, plan.measured) = (Duration::ZERO, Duration::from_millis(300));
    plan
}

fn drive(plan: &Plan) -> Result<Tally> {
    let calls = calls();
    run(plan, |slots| Http2::new(&calls, slots), || Duration::ZERO)
}

#[test]
fn what_the_server_did_wrong_is_counted_as_what_it_was() {
    let service = Faulty::default();
    let (_runtime, address) = serve(service.clone());
    let tally = drive(&plan(address, Pace::Once, Keys::warm(1000))).expect("a run");
    assert_eq!((tally.right, tally.warm.count()), (600, 600));
    let refused = tally.wrong.get("status 7").copied();
    let wrong = tally.wrong.get("wrong bytes").copied();
    assert_eq!((refused, wrong), (Some(100), Some(300)), "{}", tally.faults());
    let done = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let Done { right, refused, foreign, cut_short, empty } = &*service.done;
    assert_eq!([right, refused, foreign, cut_short, empty].map(done), [600, 100, 100, 100, 100]);
}

#[test]
fn as_many_answers_are_counted_as_the_server_gave() {
    let service = Faulty::default();
    let (_runtime, address) = serve(service.clone());
    // Of one key, which is right.
    let plan = plan(address, Pace::Closed, Keys::warm(1));
    let tally = drive(&plan).expect("a run");
    let (given, counted) = (service.done.right.load(Ordering::Relaxed), tally.right);
    assert_eq!(tally.faults(), "");
    // At the end as many are under way as there are streams.
    let open = (plan.connections * plan.streams) as u64;
    assert!(counted > 0 && counted <= given && given <= counted + open, "given {given}, counted {counted}");
    assert_eq!(tally.bytes / counted, tally.bytes.div_ceil(counted), "all answers have the same length");
}

#[test]
fn at_a_fixed_rate_every_call_that_was_due_is_made_and_counted() {
    let service = Faulty::default();
    let (_runtime, address) = serve(service.clone());
    let tally = drive(&plan(address, Pace::Rate(1000.0), Keys::warm(1))).expect("a run");
    assert_eq!(tally.faults(), "");
    assert_eq!(tally.right, service.done.right.load(Ordering::Relaxed));
    assert_eq!(tally.right, 300, "those that are due within 300 ms");
}

#[test]
fn each_interval_has_one_call_at_a_moment_of_its_own() {
    let begin = now();
    let mut schedule = Schedule::new(begin, 4000.0, 7);
    let interval = Duration::from_micros(250);
    let mut moments = vec![];
    for nth in 1..=4000 {
        let end = begin + interval * nth;
        let due = schedule.take(end).expect("one call in each interval");
        assert_eq!(schedule.take(end), None, "a second one in interval {nth}");
        moments.push((interval - (end - due)).as_secs_f64() / interval.as_secs_f64());
    }
    // All parts of the interval have their share.
    for tenth in 0..10_u32 {
        let part = f64::from(tenth)..f64::from(tenth + 1);
        let share = moments.iter().filter(|moment| part.contains(&(**moment * 10.0))).count();
        assert!((300..500).contains(&share), "{share} of 4000 in part {tenth}");
    }
    let other = Schedule::new(begin, 4000.0, 8).take(begin + interval);
    assert_ne!(Schedule::new(begin, 4000.0, 7).take(begin + interval), other, "another seed, other moments");
}

#[test]
fn a_call_that_waits_for_a_free_stream_counts_from_when_it_was_due() {
    // One stream, and answers that take 50 ms: at 1,000 calls a second the n-th waits for all before it.
    let delay = Duration::from_millis(50);
    let (_runtime, address) = serve(Faulty { cold: Some((0, delay)), ..Faulty::default() });
    let mut plan = plan(address, Pace::Rate(1000.0), Keys::warm(1));
    (plan.connections, plan.streams, plan.measured) = (1, 1, Duration::from_millis(20));
    let tally = drive(&plan).expect("a run");
    assert_eq!(tally.faults(), "");
    assert_eq!(tally.right, 20);
    // Counted from when it was sent, none would have waited for others: the last was due within 20 ms.
    let longest = tally.warm.longest();
    assert!(longest >= delay * 20 - Duration::from_millis(20), "{longest:?}");
}

#[test]
fn calls_that_are_never_answered_are_reported() {
    let (_runtime, address) = serve(Faulty { cold: Some((7, Duration::from_secs(3600))), ..Faulty::default() });
    let calls = calls();
    let mut plan = plan(address, Pace::Rate(1000.0), Keys { first: 0, warm: 1, cold: Some((10, 1007)) });
    plan.patience = Duration::from_millis(200);
    let tally = run(&plan, |slots| Http2::new(&calls, slots), || Duration::ZERO).expect("a run");
    assert!(tally.wrong.get("never answered").is_some_and(|lost| *lost > 0), "{}", tally.faults());
    assert_eq!(tally.cold.count(), 0);
}

#[test]
fn warm_and_cold_keys_are_told_apart() {
    let service = Faulty { cold: Some((1000, Duration::from_millis(30))), ..Faulty::default() };
    let (_runtime, address) = serve(service);
    // Every key from 1005 on is a cold one; of ten of them four go wrong.
    let tally =
        drive(&plan(address, Pace::Rate(500.0), Keys { first: 0, warm: 1, cold: Some((10, 1005)) })).expect("a run");
    assert!(tally.cold.count() > 0 && tally.cold.count() * 8 < tally.warm.count());
    assert!(tally.cold.percentile(1.0) >= Duration::from_millis(29), "{:?}", tally.cold.percentile(1.0));
}

#[test]
fn a_herd_asks_for_one_key_with_every_stream_once() {
    let service = Faulty::default();
    let (_runtime, address) = serve(service.clone());
    let tally = drive(&plan(address, Pace::Herd, Keys { first: 15, warm: 1, cold: None })).expect("a run");
    assert_eq!((tally.right, service.done.right.load(Ordering::Relaxed)), (32, 32), "{}", tally.faults());
}

/// A server that reads a little, says something and hangs up.
fn rude(said: impl Into<Vec<u8>>) -> SocketAddr {
    let said = said.into();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let said = said.clone();
            thread::spawn(move || {
                let _ = stream.write_all(b"\x00\x00\x00\x04\x00\x00\x00\x00\x00");
                // The calls come after the settings, which are shorter than this.
                let mut received = [0; 400];
                let _ = stream.read_exact(&mut received);
                let _ = stream.write_all(&said);
                let _ = stream.shutdown(Shutdown::Write);
                // Closing with something unread would take back what was said.
                let _ = std::io::copy(&mut stream, &mut std::io::sink());
            });
        }
    });
    address
}

#[test]
fn a_connection_that_ends_takes_its_calls_with_it() {
    let address = rude(b"");
    let tally = drive(&plan(address, Pace::Once, Keys::warm(32))).expect("a run");
    assert_eq!((tally.right, tally.wrong.get("connection lost").copied()), (0, Some(32)), "{}", tally.faults());
    drive(&plan(address, Pace::Closed, Keys::warm(32))).expect_err("no connection is left");
}

#[test]
fn a_stream_that_is_reset_is_no_answer() {
    // RST_STREAM of the first stream, then the end of the connection takes the others.
    let address = rude(b"\x00\x00\x04\x03\x00\x00\x00\x00\x01\x00\x00\x00\x02");
    let tally = drive(&plan(address, Pace::Once, Keys::warm(32))).expect("a run");
    let lost = tally.wrong.get("connection lost").copied().unwrap_or(0);
    assert_eq!((tally.wrong.get("stream reset").copied(), lost + 4), (Some(4), 32), "{}", tally.faults());
}

/// HEADERS with `:status` 200, then DATA: the token of key 0, and the end of the stream if there are no `trailers`.
fn answer(trailers: &[u8]) -> Vec<u8> {
    let token = token("00000000");
    let length = u8::try_from(TOKEN >> 8).expect("short");
    let rest = u8::try_from(TOKEN & 0xff).expect("a byte");
    let mut said = b"\x00\x00\x01\x01\x04\x00\x00\x00\x01\x88".to_vec();
    said.extend([0, length, rest + 5, 0, u8::from(trailers.is_empty()), 0, 0, 0, 1, 0, 0, 0, length, rest]);
    said.extend(token.as_bytes());
    said.extend(trailers);
    said
}

#[test]
fn a_success_without_a_status_is_none() {
    let trailers = b"\x00\x00\x0f\x01\x05\x00\x00\x00\x01\x00\x0bgrpc-status\x010";
    for (trailers, right) in [(trailers.as_slice(), 1), (b"", 0)] {
        let address = rude(answer(trailers));
        let mut plan = plan(address, Pace::Once, Keys::warm(16));
        (plan.connections, plan.streams) = (1, 16);
        let tally = drive(&plan).expect("a run");
        let wrong = tally.wrong.get("wrong bytes").copied().unwrap_or(0);
        assert_eq!((tally.right, wrong), (right, 1 - right), "{}", tally.faults());
    }
}

//! API keys against a store that can be made to fail.

use super::*;
use crate::{store::MemoryTokenStore, time::SystemClock};

struct Desk {
    keys: Arc<ApiKeys>,
    store: SharedStore,
    rng: SharedRng,
}

impl Desk {
    fn open() -> Self {
        let clock: SharedClock = Arc::new(SystemClock);
        let store: SharedStore = Arc::new(MemoryTokenStore::new(Arc::clone(&clock)));
        Self { keys: Arc::new(ApiKeys::new(Arc::clone(&store), clock)), store, rng: SharedRng::from_os() }
    }

    async fn make(&self, name: &str, expires_at: Option<Timestamp>) -> (Secret, String) {
        let (text, key) = generate(name, Timestamp::from_millis(0), expires_at, &self.rng);
        let id = key.id.clone();
        self.store.add_api_key(key).await.unwrap();
        (text, id)
    }

    async fn refusal(&self, token: &Secret) -> ErrorKind {
        self.keys.recognise(token).await.unwrap_err().kind()
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_is_known_by_its_name_and_ends_when_it_says() {
    let desk = Desk::open();
    let end = Timestamp::from_millis(42);
    let (key, _) = desk.make("ci", Some(end)).await;
    let caller = desk.keys.recognise(&key).await.unwrap().unwrap();
    assert_eq!((caller.subject(), caller.expires_at()), ("key:ci", Some(end)));
}

#[tokio::test(start_paused = true)]
async fn the_store_never_sees_the_key() {
    let desk = Desk::open();
    let (key, id) = desk.make("ci", None).await;
    let stored = desk.store.api_keys().await.unwrap();
    assert_eq!((stored[0].id.as_str(), stored[0].hash), (id.as_str(), hash_of(&key)));
    let secret = key.expose().rsplit('_').next().unwrap();
    assert!(!format!("{stored:?}").contains(secret) && key.expose().contains(&id));
}

#[tokio::test(start_paused = true)]
async fn a_wrong_secret_under_a_right_id_is_refused() {
    let desk = Desk::open();
    let (key, id) = desk.make("ci", None).await;
    let (other, _) = generate("ci", Timestamp::from_millis(0), None, &desk.rng);
    let forged = Secret::from(format!("tck_{id}_{}", &other.expose()[21..]));
    assert!(desk.keys.recognise(&key).await.unwrap().is_some());
    assert_eq!(desk.refusal(&forged).await, ErrorKind::BadIdentity);
    assert_eq!(desk.refusal(&other).await, ErrorKind::BadIdentity);
    for malformed in ["tck_", "tck_x", "tck_0123456789abcdef_", "tck_0123456789ABCDEF_x", &format!("{}=", key.expose())]
    {
        assert_eq!(desk.refusal(&Secret::from(malformed)).await, ErrorKind::BadIdentity, "{malformed}");
    }
    assert_eq!(desk.keys.recognise(&Secret::from("eyJ.a.b")).await, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn a_revoked_key_is_refused_after_the_next_look() {
    let desk = Desk::open();
    let (key, id) = desk.make("ci", None).await;
    let stop = CancellationToken::new();
    let reader = tokio::spawn(Arc::clone(&desk.keys).run(stop.clone()));
    sleep(Duration::from_millis(1)).await;
    assert!(desk.keys.recognise(&key).await.unwrap().is_some());
    assert!(desk.store.revoke_api_key(id, Timestamp::from_millis(1)).await.unwrap());
    sleep(REREAD + Duration::from_millis(1)).await;
    assert_eq!(desk.refusal(&key).await, ErrorKind::BadIdentity);
    stop.cancel();
    reader.await.unwrap();
    // What was used is noted when the reader ends.
    assert!(desk.store.api_keys().await.unwrap()[0].last_used_at.is_some());
}

#[tokio::test(start_paused = true)]
async fn made_up_ids_have_the_store_asked_once_a_second() {
    let desk = Desk::open();
    let _ = desk.refusal(&generate("x", Timestamp::from_millis(0), None, &desk.rng).0).await;
    let (fresh, _) = desk.make("new", None).await;
    // Within the pause it is not known yet; after it, it is.
    assert_eq!(desk.refusal(&fresh).await, ErrorKind::BadIdentity);
    sleep(PAUSE).await;
    assert!(desk.keys.recognise(&fresh).await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn with_the_store_away_known_keys_work_and_unknown_ones_cannot_be_judged() {
    let desk = Desk::open();
    let (key, _) = desk.make("ci", None).await;
    assert!(desk.keys.recognise(&key).await.unwrap().is_some());
    desk.store.close().await;
    sleep(PAUSE).await;
    assert!(desk.keys.recognise(&key).await.unwrap().is_some());
    let (unknown, _) = generate("x", Timestamp::from_millis(0), None, &desk.rng);
    assert_eq!(desk.refusal(&unknown).await, ErrorKind::StoreDown);
}

//! The helper of git-credential(1): lines of `key=value`.

use std::time::{SystemTime, UNIX_EPOCH};

use tokencache_client::Token;

use super::{question, report, secret, token};
use crate::{
    args::{Action, Git},
    broker::Broker,
    failure::Failure,
    output::Output,
};

/// What git says.
struct Question<'a>(&'a str);

impl<'a> Question<'a> {
    /// The last value of a key counts.
    fn get(&self, key: &str) -> Option<&'a str> {
        self.all(key).last()
    }

    fn all(&self, key: &str) -> impl DoubleEndedIterator<Item = &'a str> {
        let pairs = self.0.lines().filter_map(|line| line.split_once('='));
        pairs.filter(move |(name, _)| *name == key).map(|(_, value)| value)
    }
}

pub(super) async fn run(broker: &Broker, git: &Git, output: &mut Output) -> Result<(), Failure> {
    let text = question()?;
    let question = Question(&text);
    let is_ours = git.hosts.is_empty()
        || question.get("host").is_some_and(|host| git.hosts.iter().any(|ours| ours.eq_ignore_ascii_case(host)));
    match git.action {
        Action::Get if is_ours => {
            let token = token(broker, &git.whose).await?;
            let answer = secret(answer(git, &question, &token)?);
            output.write(answer.expose())
        }
        Action::Erase if is_ours => {
            match question.get("password").or_else(|| question.get("credential")).filter(|refused| !refused.is_empty())
            {
                Some(refused) => report(broker, &git.whose, refused).await,
                None => Ok(()),
            }
        }
        // The broker keeps what there is to keep.
        _ => Ok(()),
    }
}

fn answer(git: &Git, question: &Question<'_>, token: &Token) -> Result<String, Failure> {
    let secret = token.access_token.expose();
    let offered = question.all("capability[]").any(|capability| capability == "authtype");
    let mut answer = match &git.authtype {
        // `ephemeral`: no other helper is to keep it.
        Some(scheme) if offered => {
            format!("capability[]=authtype\nauthtype={scheme}\ncredential={secret}\nephemeral=1\n")
        }
        _ => {
            let username = question.get("username").filter(|name| !name.is_empty()).unwrap_or(&git.username);
            format!("username={username}\npassword={secret}\n")
        }
    };
    if answer.bytes().any(|byte| byte == 0 || byte == b'\r') || answer.lines().any(|line| !line.contains('=')) {
        return Err(Failure::Usage("git takes no user name or scheme of several lines; correct --username".into()));
    }
    answer += &format!("password_expiry_utc={}\n", seconds(token.expires_at));
    Ok(answer)
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

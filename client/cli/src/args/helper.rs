//! The arguments of `tokencache credential-helper`.

use clap::{Args, Subcommand};

use super::Ask;

#[derive(Args, Debug)]
pub(crate) struct Helper {
    #[command(subcommand)]
    pub(crate) kind: Kind,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Kind {
    /// For git: `git config credential.https://HOST.helper '!tokencache credential-helper git --credential NAME'`
    Git(Git),
    /// For docker: a script docker-credential-NAME that runs this with its argument, and credHelpers in config.json
    Docker(Docker),
    /// For kubectl and its kin: users[].user.exec in a kubeconfig
    Kubernetes(Whose),
    /// For the AWS SDKs and command line: credential_process in ~/.aws/config
    Aws(Whose),
}

#[derive(Args, Debug)]
pub(crate) struct Whose {
    /// The credential
    #[arg(long, value_name = "NAME")]
    pub(crate) credential: String,

    #[command(flatten)]
    pub(crate) ask: Ask,
}

#[derive(Args, Debug)]
pub(crate) struct Git {
    #[command(flatten)]
    pub(crate) whose: Whose,

    /// The user's name beside the token, where git says none
    #[arg(long, value_name = "USER", default_value = "x-access-token")]
    pub(crate) username: String,

    /// The scheme to send the token with instead of Basic, e.g. Bearer, where git knows how to (2.46 and later)
    #[arg(long, value_name = "SCHEME")]
    pub(crate) authtype: Option<String>,

    /// Answer for this host only, as git writes it (with the port, if any); may be repeated [default: for all that git asks
    /// about]
    #[arg(long = "host", value_name = "HOST")]
    pub(crate) hosts: Vec<String>,

    /// What git asks for
    #[arg(value_name = "get|store|erase", value_parser = action)]
    pub(crate) action: Action,
}

#[derive(Args, Debug)]
pub(crate) struct Docker {
    #[command(flatten)]
    pub(crate) whose: Whose,

    /// The user's name beside the token
    #[arg(long, value_name = "USER", default_value = "oauth2accesstoken")]
    pub(crate) username: String,

    /// Answer for this registry only; may be repeated [default: for all that docker asks about]
    #[arg(long = "registry", value_name = "HOST")]
    pub(crate) registries: Vec<String>,

    /// What docker asks for
    #[arg(value_name = "get|store|erase|list", value_parser = action)]
    pub(crate) action: Action,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Get,
    Store,
    Erase,
    List,
    /// A later one: gitcredentials(7) wants it to be passed over in silence.
    Unknown,
}

fn action(text: &str) -> Result<Action, String> {
    Ok(match text {
        "get" => Action::Get,
        "store" => Action::Store,
        "erase" => Action::Erase,
        "list" => Action::List,
        _ => Action::Unknown,
    })
}

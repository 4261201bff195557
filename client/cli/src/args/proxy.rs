//! The arguments of `tokencache proxy`.

use std::path::PathBuf;

use clap::Args;
use http::{HeaderName, Uri, header::AUTHORIZATION};

use super::{Ask, Format};

#[derive(Args, Debug)]
pub(crate) struct Proxy {
    /// The credential
    #[arg(long, value_name = "NAME")]
    pub(crate) credential: String,

    #[command(flatten)]
    pub(crate) ask: Ask,

    /// Where the requests go; a path in it comes before theirs
    #[arg(long, value_name = "URL", value_parser = upstream)]
    pub(crate) upstream: Uri,

    /// Where to listen: ADDRESS:PORT or unix:PATH; port 0: any free one
    #[arg(long, value_name = "WHERE", default_value = "127.0.0.1:0")]
    pub(crate) listen: String,

    /// Listen on other addresses than loopback: whoever reaches them acts with the token
    #[arg(long)]
    pub(crate) allow_remote: bool,

    /// Send the token in the clear to an upstream with http:// on another machine
    #[arg(long)]
    pub(crate) allow_cleartext: bool,

    /// The header for the token
    #[arg(long, value_name = "HEADER", default_value_t = AUTHORIZATION)]
    pub(crate) header: HeaderName,

    /// What comes before the token, e.g. Bearer; empty: the token alone [default: the token's type]
    #[arg(long, value_name = "SCHEME", value_parser = scheme)]
    pub(crate) scheme: Option<String>,

    /// How much of a request's body is kept, so that the request can be sent again after a 401
    #[arg(long, value_name = "SIZE", default_value = "64KiB", value_parser = size)]
    pub(crate) max_body: usize,

    /// The authorities, in PEM, that certify the upstream [default: those of the operating system]
    #[arg(long, value_name = "FILE")]
    pub(crate) upstream_ca_file: Option<PathBuf>,

    /// How the address that is listened on is printed: text: alone; json: an object
    #[arg(long, short, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,
}

fn upstream(text: &str) -> Result<Uri, String> {
    let wrong = || "write http://HOST[:PORT][/PATH] or https://...".to_owned();
    let uri: Uri = text.parse().map_err(|_| wrong())?;
    let authority = uri.authority().ok_or_else(wrong)?;
    // A user's name or a query would be in every log.
    let is_plain = !authority.as_str().contains('@') && !authority.host().is_empty() && uri.query().is_none();
    if is_plain && matches!(uri.scheme_str(), Some("http" | "https")) { Ok(uri) } else { Err(wrong()) }
}

fn scheme(text: &str) -> Result<String, String> {
    let is_token = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
    if is_token { Ok(text.into()) } else { Err("a scheme is one word".into()) }
}

fn size(text: &str) -> Result<usize, String> {
    let split = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor: usize = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err("the units are KiB, MiB and GiB".into()),
    };
    number.parse().ok().and_then(|number: usize| number.checked_mul(factor)).ok_or_else(|| "write e.g. 64KiB".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_of_two() {
        assert_eq!((size("64KiB"), size("3"), size("1MiB")), (Ok(65536), Ok(3), Ok(1 << 20)));
        assert!(size("64kb").is_err() && size("KiB").is_err() && size("").is_err());
    }

    #[test]
    fn an_upstream_has_a_host_and_no_user() {
        assert!(upstream("https://api.example/v1").is_ok() && upstream("http://[::1]:8080").is_ok());
        for text in ["api.example", "ftp://x", "https://user:s3cr3t@x", "https://x/?q=1"] {
            assert!(upstream(text).is_err(), "{text}");
        }
    }
}

//! nginx with one worker, serving the bytes of an answer from a file that it keeps open.

use std::{fs, process::Command};

use anyhow::Result;

use super::{Contender, Host, Language, Name, host, stand_ins};
use crate::{talk::http2::Calls, upstream::TOKEN};

pub(super) fn start(host: &Host) -> Result<Contender> {
    let program = host::installed("nginx")?;
    let directory = host.directory("nginx")?;
    let [address] = host::addresses()?;
    fs::write(directory.join("answer"), stand_ins::answer())?;
    let here = directory.display();
    let temporary =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|kind| format!("{kind}_temp_path {here}/{kind};"));
    let configuration = format!(
        "daemon off; worker_processes 1; pid {here}/pid; error_log stderr error;\n\
         events {{ worker_connections 1024; }}\n\
         http {{ access_log off; default_type application/octet-stream; {}\n\
         open_file_cache max=16 inactive=1h; open_file_cache_valid 1h; keepalive_requests 1000000000;\n\
         server {{ listen {address} http2; root {here}; }} }}\n",
        temporary.join(" ")
    );
    fs::write(directory.join("nginx.conf"), configuration)?;
    let mut command = Command::new(program);
    command.args(["-e", "stderr", "-p"]).arg(&directory).args(["-c", "nginx.conf"]);
    let (guard, family) = host.start(&mut command, &directory, address)?;
    let language = Language::Http2(Calls::get("http", "/answer", Some(TOKEN)));
    Ok(Contender { name: Name::Nginx, address, tls: None, language, family, _guard: Box::new(guard) })
}

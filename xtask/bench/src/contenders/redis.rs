//! Redis, keeping nothing on disk.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    process::Command,
};

use anyhow::{Result, ensure};

use super::{Contender, Host, Language, Name, host};
use crate::{talk::Redis, upstream::token};

pub(super) fn start(host: &Host) -> Result<Contender> {
    let program = host::installed("redis-server")?;
    let directory = host.directory("redis")?;
    let [address] = host::addresses()?;
    let mut command = Command::new(program);
    command.args(["--bind", "127.0.0.1", "--port", &address.port().to_string()]);
    command.args(["--save", "", "--appendonly", "no", "--daemonize", "no"]);
    let (guard, family) = host.start(&mut command, &directory, address)?;
    let mut socket = TcpStream::connect(address)?;
    for key in 0..host.keys {
        let key = format!("{key:08}");
        socket.write_all(&Redis::command(&[b"SET", key.as_bytes(), token(&key).as_bytes()]))?;
        let mut said = [0; 5];
        socket.read_exact(&mut said)?;
        ensure!(said == *b"+OK\r\n", "Redis does not take a key: {}", String::from_utf8_lossy(&said));
    }
    Ok(Contender { name: Name::Redis, address, tls: None, language: Language::Redis, family, _guard: Box::new(guard) })
}

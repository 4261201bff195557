//! Writes certificates (RFC 5280) of whatever parts, right or wrong, but always in well-formed DER.

/// `id-ce-subjectAltName`, `id-ce-basicConstraints` and `id-ce-keyUsage`.
const NAMES: [u8; 3] = [0x55, 0x1d, 0x11];
const CONSTRAINTS: [u8; 3] = [0x55, 0x1d, 0x13];
const USAGE: [u8; 3] = [0x55, 0x1d, 0x0f];
const ED25519: [u8; 3] = [0x2b, 0x65, 0x70];

/// What stands between two parts: a byte that is in no text.
const SEPARATOR: u8 = 0xff;

/// The bits `keyCertSign` and `cRLSign`.
const SIGNING: u8 = 0x06;

/// What a certificate is made of.
#[derive(Debug, Default)]
pub(super) struct Parts {
    pub(super) uris: Vec<Vec<u8>>,
    pub(super) hosts: Vec<Vec<u8>>,
    /// The encoded names, for each extension that has some.
    names: Vec<Vec<u8>>,
    authority: Vec<bool>,
    usages: Vec<u8>,
    end: Option<Vec<u8>>,
}

impl Parts {
    /// Each begins with a letter: `U` a URI, `D` a DNS name, `M` a mail address, `I` an IP address, `S` one more extension
    /// of names, `C` an authority, `L` none, `K` a key usage, `E` the end.
    pub(super) fn read(text: &[u8]) -> Self {
        let mut parts = Self::default();
        for part in text.split(|byte| *byte == SEPARATOR) {
            let Some((kind, rest)) = part.split_first() else { continue };
            match kind {
                b'U' => parts.add(0x86, rest).uris.push(rest.to_vec()),
                b'D' => parts.add(0x82, rest).hosts.push(rest.to_vec()),
                b'M' => drop(parts.add(0x81, rest)),
                b'I' => drop(parts.add(0x87, rest)),
                b'S' => parts.names.push(Vec::new()),
                b'C' => parts.authority.push(true),
                b'L' => parts.authority.push(false),
                b'K' => parts.usages.push(rest.first().copied().unwrap_or(0)),
                b'E' => parts.end = Some(rest.to_vec()),
                _ => {}
            }
        }
        parts
    }

    fn add(&mut self, tag: u8, name: &[u8]) -> &mut Self {
        if self.names.is_empty() {
            self.names.push(Vec::new());
        }
        let names = self.names.last_mut().expect("one at least");
        names.extend(element(tag, &[name]));
        self
    }

    /// Whether nothing but the names and what the certificate may do decides: every part is once there, and ASCII.
    pub(super) fn is_legible(&self) -> bool {
        let ascii = |names: &[Vec<u8>]| names.iter().all(|name| name.is_ascii());
        let once = self.names.len() <= 1 && self.authority.len() <= 1 && self.usages.len() <= 1;
        once && self.end.is_none() && ascii(&self.uris) && ascii(&self.hosts) && !self.has_others()
    }

    /// Names of kinds that a parser may find fault with.
    fn has_others(&self) -> bool {
        let own: usize = self.uris.iter().chain(&self.hosts).map(|name| element(0x86, &[name]).len()).sum();
        self.names.iter().map(Vec::len).sum::<usize>() != own
    }

    /// Whether it may sign certificates, as far as any of its parts says so.
    pub(super) fn signs(&self) -> bool {
        self.authority.contains(&true) || self.usages.iter().any(|usage| usage & SIGNING != 0)
    }

    /// The only one, as text.
    pub(super) fn single(&self, names: &[Vec<u8>]) -> Option<String> {
        let [name] = names else { return None };
        String::from_utf8(name.clone()).ok()
    }

    /// The certificate. Its signature is worth nothing.
    pub(super) fn certificate(&self) -> Vec<u8> {
        let mut extensions = Vec::new();
        for names in &self.names {
            extensions.extend(extension(&NAMES, &element(0x30, &[names])));
        }
        for authority in &self.authority {
            let truth = if *authority { element(0x01, &[&[0xff]]) } else { Vec::new() };
            extensions.extend(extension(&CONSTRAINTS, &element(0x30, &[&truth])));
        }
        for usage in &self.usages {
            extensions.extend(extension(&USAGE, &element(0x03, &[&[0, *usage]])));
        }
        let algorithm = element(0x30, &[&element(0x06, &[&ED25519])]);
        let (begin, end) = (element(0x17, &[b"240101000000Z"]), self.end.as_deref().unwrap_or(b"340101000000Z"));
        let validity = element(0x30, &[&begin, &element(0x17, &[end])]);
        let key = element(0x30, &[&algorithm, &element(0x03, &[&[0; 33]])]);
        let version = element(0xa0, &[&element(0x02, &[&[2]])]);
        let (serial, nobody) = (element(0x02, &[&[1]]), element(0x30, &[]));
        let extensions = match extensions.is_empty() {
            true => Vec::new(),
            false => element(0xa3, &[&element(0x30, &[&extensions])]),
        };
        let body = element(0x30, &[&version, &serial, &algorithm, &nobody, &validity, &nobody, &key, &extensions]);
        element(0x30, &[&body, &algorithm, &element(0x03, &[&[0; 65]])])
    }
}

fn extension(name: &[u8], value: &[u8]) -> Vec<u8> {
    element(0x30, &[&element(0x06, &[name]), &element(0x04, &[value])])
}

/// Tag, length and contents.
fn element(tag: u8, contents: &[&[u8]]) -> Vec<u8> {
    let length: usize = contents.iter().map(|part| part.len()).sum();
    let mut bytes = vec![tag];
    match u16::try_from(length).expect("a short input").to_be_bytes() {
        [0, low @ 0..0x80] => bytes.push(low),
        [0, low] => bytes.extend([0x81, low]),
        [high, low] => bytes.extend([0x82, high, low]),
    }
    bytes.extend(contents.concat());
    bytes
}

//! Changes a text as a script says, so that a fuzzer can change what it cannot make, such as a signature.

/// Four bytes a step: a place, what to do there, and with which byte.
pub(crate) fn edited(text: &[u8], script: &[u8]) -> Vec<u8> {
    let mut text = text.to_vec();
    for step in script.chunks_exact(4) {
        let place = usize::from(u16::from_be_bytes([step[0], step[1]])) % (text.len() + 1);
        match step[2] % 4 {
            0 if place < text.len() => text[place] = step[3],
            1 => text.insert(place, step[3]),
            2 if place < text.len() => drop(text.remove(place)),
            3 => text.truncate(place),
            _ => {}
        }
    }
    text
}

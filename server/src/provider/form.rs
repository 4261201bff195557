//! Bodies of the type `application/x-www-form-urlencoded`.

use url::form_urlencoded::byte_serialize;
use zeroize::Zeroizing;

use super::buffer::SecretBuffer;

/// A form-encoded body in the making. It is wiped when it is dropped.
#[derive(Default)]
pub(crate) struct Form(SecretBuffer);

impl Form {
    pub(crate) fn push(&mut self, name: &str, value: &str) {
        if !self.0.is_empty() {
            self.0.push(b"&");
        }
        self.encode(name);
        self.0.push(b"=");
        self.encode(value);
    }

    pub(crate) fn into_body(self) -> Zeroizing<Vec<u8>> {
        self.0.into_bytes()
    }

    fn encode(&mut self, text: &str) {
        byte_serialize(text.as_bytes()).for_each(|part| self.0.push(part.as_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_are_encoded_and_joined() {
        let mut form = Form::default();
        form.push("a b", "s3cr:et/ %+x");
        form.push("c", "");
        assert_eq!(&form.into_body()[..], b"a+b=s3cr%3Aet%2F+%25%2Bx&c=");
    }
}

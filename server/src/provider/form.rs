//! Bodies of the type `application/x-www-form-urlencoded`.

use url::form_urlencoded::byte_serialize;

/// A form-encoded body in the making.
#[derive(Default)]
pub(crate) struct Form(String);

impl Form {
    pub(crate) fn push(&mut self, name: &str, value: &str) {
        let separator = if self.0.is_empty() { "" } else { "&" };
        let parts = [separator].into_iter().chain(byte_serialize(name.as_bytes())).chain(["="]);
        self.0.extend(parts.chain(byte_serialize(value.as_bytes())));
    }

    pub(crate) fn into_body(self) -> Vec<u8> {
        self.0.into_bytes()
    }
}

//! The gRPC interface of tokencache: messages, clients, servers and the descriptors for reflection.

/// Package `tokencache.v1`.
#[expect(clippy::allow_attributes_without_reason, unused_qualifications, reason = "generated code")]
#[cfg_attr(feature = "server", expect(clippy::allow_attributes, reason = "generated code"))]
pub mod v1 {
    tonic::include_proto!("tokencache.v1");
}

#[cfg(test)]
mod compatibility;

use std::fmt;

/// The encoded `FileDescriptorSet` of the package and all that it imports.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The domain of every `google.rpc.ErrorInfo` that the broker sends.
pub const ERROR_DOMAIN: &str = "tokencache";

impl fmt::Debug for v1::Token {
    /// Shows everything but the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("access_token", &"[redacted]")
            .field("token_type", &self.token_type)
            .field("expires_at", &self.expires_at)
            .field("generation", &self.generation)
            .field("fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_of_a_token_does_not_show_it() {
        let token = v1::Token {
            access_token: "s3cr3t".into(),
            attributes: [("k".into(), "s3cr3t".into())].into(),
            ..Default::default()
        };
        let response = v1::GetTokenResponse { token: Some(token), ..Default::default() };
        let shown = format!("{response:?}");
        assert!(shown.contains("[redacted]"));
        assert!(!shown.contains("s3cr3t"), "{shown}");
    }
}

//! What identifies the contents of files.

use sha2::{Digest, Sha256};

use super::DEFAULT_FIELD;
use super::kind::FileKind;
use crate::files::hex;

/// SHA-256 over the kinds and contents of files, in order, without their names.
#[derive(Default)]
pub(super) struct Fingerprint {
    digest: Sha256,
    length: u64,
}

impl Fingerprint {
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
        self.length += bytes.len() as u64;
    }

    pub(super) fn end_file(&mut self, kind: FileKind, field: &str) {
        // After the contents, so that a file's length need not be known before.
        self.digest.update(self.length.to_le_bytes());
        self.digest.update([kind.byte()]);
        if kind.has_fields() && field != DEFAULT_FIELD {
            self.digest.update((field.len() as u64).to_le_bytes());
            self.digest.update(field);
        }
        self.length = 0;
    }

    pub(super) fn hex(&self) -> String {
        hex(&self.digest.clone().finalize())
    }
}

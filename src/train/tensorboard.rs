//! The event files that TensorBoard reads: scalars only.
//!
//! A file is a row of TFRecord frames, each holding one `Event` protocol buffer; the field numbers
//! below are those of TensorFlow's `event.proto` and `summary.proto`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};

/// How a protocol buffer announces the encoding of a field's value.
const VARINT: u64 = 0;
const BITS_64: u64 = 1;
const BYTES: u64 = 2;
const BITS_32: u64 = 5;

/// An open event file. Every record is handed to the system whole and at once, so that a killed run
/// leaves at most one torn record, at the end, which readers pass over.
#[derive(Debug)]
pub(super) struct EventFile {
    path: PathBuf,
    file: File,
}

impl EventFile {
    /// Begins `events.out.tfevents.<unix time>.gossamer` in the folder `dir`, or the next free
    /// second's.
    pub(super) fn create(dir: &Path) -> Result<Self> {
        let mut seconds = since_epoch().as_secs();
        let (path, file) = loop {
            let path = dir.join(format!("events.out.tfevents.{seconds}.gossamer"));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => seconds += 1,
                Err(e) => return Err(Error::io(path, e)),
                Ok(file) => break (path, file),
            }
        };
        let mut events = Self { path, file };
        events.event(None, |event| bytes_field(event, 3, b"brain.Event:2"))?;
        Ok(events)
    }

    /// Tells the reader that the run begins anew at `step`: what earlier files say of this step and
    /// later ones no longer counts.
    pub(super) fn restart(&mut self, step: u64) -> Result<()> {
        let mut session = Vec::new();
        varint_field(&mut session, 1, 1); // SessionLog.status = START
        self.event(Some(step), |event| bytes_field(event, 7, &session))
    }

    /// Appends named scalars, as f32, at `step`.
    pub(super) fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> Result<()> {
        let mut summary = Vec::new();
        for (tag, value) in values {
            let mut entry = Vec::new();
            bytes_field(&mut entry, 1, tag.as_bytes());
            key(&mut entry, 2, BITS_32);
            entry.extend((*value as f32).to_le_bytes());
            bytes_field(&mut summary, 1, &entry);
        }
        self.event(Some(step), |event| bytes_field(event, 5, &summary))
    }

    fn event(&mut self, step: Option<u64>, what: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        let mut event = Vec::new();
        key(&mut event, 1, BITS_64);
        event.extend(since_epoch().as_secs_f64().to_le_bytes());
        if let Some(step) = step {
            varint_field(&mut event, 2, step);
        }
        what(&mut event);
        self.file.write_all(&frame(&event)).map_err(|e| Error::io(&self.path, e))
    }
}

/// A TFRecord: length, checksum of the length, contents, checksum of the contents.
fn frame(contents: &[u8]) -> Vec<u8> {
    let length = (contents.len() as u64).to_le_bytes();
    let mut frame = Vec::with_capacity(contents.len() + 16);
    frame.extend(length);
    frame.extend(masked_crc(&length).to_le_bytes());
    frame.extend(contents);
    frame.extend(masked_crc(contents).to_le_bytes());
    frame
}

/// TFRecord's checksum: CRC-32C, turned and shifted so that a checksum of data that itself holds
/// checksums stays useful.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn key(out: &mut Vec<u8>, field: u64, encoding: u64) {
    varint(out, field << 3 | encoding);
}

fn varint_field(out: &mut Vec<u8>, field: u64, value: u64) {
    key(out, field, VARINT);
    varint(out, value);
}

fn bytes_field(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    key(out, field, BYTES);
    varint(out, bytes.len() as u64);
    out.extend(bytes);
}

/// Seven bits a byte, the lowest first; the top bit says that more follow.
fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A clock set before 1970 counts as 1970.
fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

//! `metrics.jsonl`, read as JSON, and the TensorBoard event file, read by a decoder that shares
//! nothing with the writer.

use std::fs;
use std::path::{Path, PathBuf};

use gossamer::Error;
use gossamer::train::memory::{host_available, human_bytes};
use gossamer::train::metrics::{Metrics, read};
use serde_json::Value;
use tempfile::tempdir;

fn event_files(dir: &Path) -> Vec<PathBuf> {
    let is_events = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        let seconds = name.strip_prefix("events.out.tfevents.").and_then(|rest| rest.strip_suffix(".gossamer"));
        seconds.is_some_and(|seconds| seconds.parse::<u64>().is_ok())
    };
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).filter(is_events).collect();
    files.sort();
    files
}

/// CRC-32C a bit at a time (reflected polynomial 0x82f63b78), then TFRecord's mask.
fn masked_crc(data: &[u8]) -> u32 {
    let crc = u64::from(crc_bitwise(data));
    ((crc << 17 | crc >> 15) as u32).wrapping_add(0xa282_ead8)
}

fn crc_bitwise(data: &[u8]) -> u32 {
    let mut crc = !0u32;
    for &byte in data {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

fn take<'a>(data: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (head, tail) = data.split_at(count);
    *data = tail;
    head
}

/// Splits TFRecords, checking every checksum.
fn records(mut file: &[u8]) -> Vec<&[u8]> {
    let mut records = Vec::new();
    while !file.is_empty() {
        let length = take(&mut file, 8);
        assert_eq!(take(&mut file, 4), masked_crc(length).to_le_bytes());
        let record = take(&mut file, u64::from_le_bytes(length.try_into().unwrap()) as usize);
        assert_eq!(take(&mut file, 4), masked_crc(record).to_le_bytes());
        records.push(record);
    }
    records
}

/// One decoded protocol buffer field.
#[derive(Debug, PartialEq)]
enum Field<'a> {
    Varint(u64),
    Double(f64),
    Float(f32),
    Bytes(&'a [u8]),
}

fn varint(data: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(data, 1)[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return value;
        }
    }
    panic!("a varint of more than ten bytes");
}

fn fields(mut message: &[u8]) -> Vec<(u64, Field<'_>)> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let key = varint(&mut message);
        let field = match key & 7 {
            0 => Field::Varint(varint(&mut message)),
            1 => Field::Double(f64::from_le_bytes(take(&mut message, 8).try_into().unwrap())),
            2 => {
                let length = varint(&mut message) as usize;
                Field::Bytes(take(&mut message, length))
            }
            5 => Field::Float(f32::from_le_bytes(take(&mut message, 4).try_into().unwrap())),
            other => panic!("wire type {other}"),
        };
        fields.push((key >> 3, field));
    }
    fields
}

/// An event without its time: (step, field number, contents).
fn event(record: &[u8]) -> (u64, u64, Vec<u8>) {
    let (mut step, mut what, mut time) = (0, None, None);
    for (number, field) in fields(record) {
        match (number, field) {
            (1, Field::Double(seconds)) => time = Some(seconds),
            (2, Field::Varint(value)) => step = value,
            (number @ (3 | 5 | 7), Field::Bytes(bytes)) => what = Some((number, bytes.to_vec())),
            other => panic!("{other:?}"),
        }
    }
    assert!(time.unwrap() > 1.7e9, "later than 2023");
    let (number, contents) = what.unwrap();
    (step, number, contents)
}

fn scalars(summary: &[u8]) -> Vec<(String, f32)> {
    let scalar = |(number, value): (u64, Field)| {
        let Field::Bytes(value) = value else { panic!() };
        assert_eq!(number, 1);
        match fields(value)[..] {
            [(1, Field::Bytes(tag)), (2, Field::Float(value))] => (String::from_utf8(tag.to_vec()).unwrap(), value),
            ref other => panic!("{other:?}"),
        }
    };
    fields(summary).into_iter().map(scalar).collect()
}

#[test]
fn the_reader_of_these_tests_knows_the_standard_checksum() {
    assert_eq!(crc_bitwise(b"123456789"), 0xe306_9283);
}

#[test]
fn lines_and_events_hold_what_was_logged() {
    let dir = tempdir().unwrap();
    let mut metrics = Metrics::open(dir.path(), None).unwrap();
    metrics.log(0, &[("loss", 2.5), ("learning rate", 1e-3)]).unwrap();
    metrics.log(300, &[("loss", f64::NAN), ("a \"b\"\n", f64::NEG_INFINITY), ("π", 0.1)]).unwrap();
    metrics.log(u64::MAX >> 1, &[]).unwrap();

    // Read while still open: nothing waits in a buffer.
    let text = fs::read_to_string(dir.path().join("metrics.jsonl")).unwrap();
    assert!(
        text.starts_with("{\"step\":0,\"loss\":2.5,\"learning rate\":0.001}\n{\"step\":300,\"loss\":null,"),
        "{text}"
    );
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[1]["a \"b\"\n"], Value::Null);
    assert_eq!(lines[1]["π"].as_f64(), Some(0.1));
    assert_eq!(lines[2]["step"].as_u64(), Some(u64::MAX >> 1));

    let files = event_files(dir.path());
    assert_eq!(files.len(), 1);
    let bytes = fs::read(&files[0]).unwrap();
    let events: Vec<_> = records(&bytes).into_iter().map(event).collect();
    assert_eq!(events.len(), 4);
    assert_eq!(events[0], (0, 3, b"brain.Event:2".to_vec()));
    assert_eq!((events[1].0, events[1].1), (0, 5));
    assert_eq!(scalars(&events[1].2), [("loss".into(), 2.5), ("learning rate".into(), 1e-3)]);
    assert_eq!((events[2].0, events[2].1), (300, 5));
    let second = scalars(&events[2].2);
    assert!(second[0].1.is_nan());
    assert_eq!(second[1..], [("a \"b\"\n".into(), f32::NEG_INFINITY), ("π".into(), 0.1)]);
    assert_eq!((events[3].0, events[3].1), (u64::MAX >> 1, 5));
}

#[test]
#[should_panic(expected = "left == right")]
fn the_reader_of_these_tests_catches_a_flipped_bit() {
    let dir = tempdir().unwrap();
    Metrics::open(dir.path(), None).unwrap().log(1, &[("loss", 2.5)]).unwrap();
    let mut bytes = fs::read(&event_files(dir.path())[0]).unwrap();
    let last = bytes.len() - 6;
    bytes[last] ^= 1;
    records(&bytes);
}

fn log_steps(metrics: &mut Metrics, steps: std::ops::Range<u64>) {
    for step in steps {
        metrics.log(step, &[("loss", 1.0 / (step + 1) as f64)]).unwrap();
    }
}

#[test]
fn a_resumed_run_leaves_the_lines_of_an_uninterrupted_one() {
    let straight = tempdir().unwrap();
    log_steps(&mut Metrics::open(straight.path(), None).unwrap(), 0..20);
    let expected = fs::read_to_string(straight.path().join("metrics.jsonl")).unwrap();

    // Stopped at step 15, in the middle of a line, with the last checkpoint at 10; or right after
    // the line's closing brace.
    for torn in ["{\"step\":15,\"lo", "", "{\"step\":15,\"loss\":0.0625}", "{", "\0\0\0", "\u{3c0}"] {
        let dir = tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        log_steps(&mut Metrics::open(dir.path(), None).unwrap(), 0..15);
        fs::write(&path, fs::read_to_string(&path).unwrap() + torn).unwrap();
        for resumed_at in [10, 12, 3] {
            log_steps(&mut Metrics::open(dir.path(), Some(resumed_at)).unwrap(), resumed_at..17);
        }
        // The checkpoint is of the step that was logged last, and its line lacks the newline.
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.trim_end()).unwrap();
        log_steps(&mut Metrics::open(dir.path(), Some(17)).unwrap(), 17..20);
        assert_eq!(fs::read_to_string(&path).unwrap(), expected, "torn by {torn:?}");

        let files = event_files(dir.path());
        assert_eq!(files.len(), 5, "an event file an opening, however quickly they follow one another");
        let bytes = fs::read(&files[1]).unwrap();
        let events: Vec<_> = records(&bytes).into_iter().map(event).collect();
        // SessionLog { status: START } at the step resumed from, which makes TensorBoard forget the
        // later ones.
        assert_eq!(events[1], (10, 7, vec![0x08, 0x01]));
        assert_eq!(events[2].0, 10);
    }
}

#[test]
fn what_was_logged_reads_back_but_for_a_line_that_is_not_whole() {
    let dir = tempdir().unwrap();
    assert_eq!(read(dir.path()).unwrap(), []);
    let mut metrics = Metrics::open(dir.path(), None).unwrap();
    metrics.log(10, &[("loss", 2.5), ("lr", f64::NAN)]).unwrap();
    metrics.log(20, &[("loss", 1.25)]).unwrap();
    let path = dir.path().join("metrics.jsonl");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    let [line] = &read(dir.path()).unwrap()[..] else { panic!("one whole line") };
    assert_eq!((line.step, line.get("loss"), line.get("lr"), line.get("density")), (10, Some(2.5), None, None));
    fs::write(&path, "{\"step\":1}\nnonsense\n").unwrap();
    assert!(read(dir.path()).unwrap_err().to_string().contains("line 2"));
}

#[test]
fn a_new_run_never_overwrites_an_earlier_ones_metrics() {
    let dir = tempdir().unwrap();
    log_steps(&mut Metrics::open(dir.path(), None).unwrap(), 0..2);
    let before = fs::read(dir.path().join("metrics.jsonl")).unwrap();
    assert!(matches!(Metrics::open(dir.path(), None), Err(Error::File { .. })));
    assert_eq!(fs::read(dir.path().join("metrics.jsonl")).unwrap(), before);

    log_steps(&mut Metrics::open(dir.path(), Some(0)).unwrap(), 0..1);
    assert_eq!(fs::read_to_string(dir.path().join("metrics.jsonl")).unwrap(), "{\"step\":0,\"loss\":1.0}\n");
}

#[test]
fn trouble_is_an_error_that_says_where() {
    let dir = tempdir().unwrap();
    assert!(matches!(Metrics::open(dir.path().join("none"), None), Err(Error::Io { .. })));
    assert!(matches!(Metrics::open(dir.path().join("none"), Some(3)), Err(Error::Io { .. })));

    let path = dir.path().join("metrics.jsonl");
    for broken in ["{\"step\":1}\nhello\n{\"step\":2}\n", "{\"step\":1}\n{\"loss\":1}\n"] {
        fs::write(&path, broken).unwrap();
        let message = Metrics::open(dir.path(), Some(9)).unwrap_err().to_string();
        assert!(message.contains("metrics.jsonl") && message.contains("line 2"), "{message}");
        assert_eq!(fs::read_to_string(&path).unwrap(), broken);
    }
    fs::remove_file(&path).unwrap();
    let mut metrics = Metrics::open(dir.path(), None).unwrap();
    assert!(matches!(metrics.log(1, &[("step", 1.0)]), Err(Error::Config { .. })));
    assert_eq!(fs::read_to_string(&path).unwrap(), "");
}

#[test]
fn there_is_some_memory() {
    let host = host_available().unwrap();
    assert!((1 << 20..1 << 50).contains(&host), "{host}");
}

#[test]
fn bytes_are_told_in_the_largest_unit_that_fits() {
    let cases = [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        ((1 << 20) - 1, "1.0 MiB"),
        (1 << 20, "1.0 MiB"),
        (78 << 30, "78.0 GiB"),
        (u64::MAX, "16.0 EiB"),
    ];
    for (bytes, text) in cases {
        assert_eq!(human_bytes(bytes), text);
    }
}

#[test]
fn a_value_can_be_added_to_the_last_line() {
    let dir = tempdir().unwrap();
    let mut metrics = Metrics::open(dir.path(), None).unwrap();
    metrics.log(1, &[("loss", 3.0)]).unwrap();
    metrics.log(2, &[("loss", 2.0)]).unwrap();
    metrics.amend(2, "validation_loss", 2.5).unwrap();
    metrics.amend(2, "grad \"rms\"", f64::NAN).unwrap();
    metrics.log(3, &[("loss", 1.0)]).unwrap();
    let lines = read(dir.path()).unwrap();
    assert_eq!(lines.iter().map(|line| line.step).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(lines.iter().map(|line| line.get("validation_loss")).collect::<Vec<_>>(), [None, Some(2.5), None]);
    assert!(lines[1].has("grad \"rms\"") && lines[1].get("grad \"rms\"").is_none());
}

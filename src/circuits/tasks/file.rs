//! Tasks from `.jsonl`: a line per pair, `{"positive": …, "negative": …, "target": …, "alternative": …}`; see `docs/tasks.md`.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Pair, PairSource, Split, Task};
use crate::files::{open_input, utf16, without_mark, write_atomic};
use crate::{Error, Result};

/// A longer line is taken for a mistake.
const LONGEST_LINE: u64 = 1 << 20;

/// A line of the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PairLine {
    #[serde(rename = "positive")]
    clean: String,
    #[serde(rename = "negative")]
    counterfactual: String,
    target: String,
    alternative: String,
    #[serde(rename = "positive_after", default, skip_serializing_if = "String::is_empty")]
    clean_after: String,
    #[serde(rename = "negative_after", default, skip_serializing_if = "String::is_empty")]
    counterfactual_after: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    split: Option<SplitName>,
}

#[derive(Serialize, Deserialize, Clone, Copy, PartialEq)]
#[serde(rename_all = "lowercase")]
enum SplitName {
    Train,
    Test,
}

impl Task {
    /// A task from a `.jsonl` file; it is called as the file's stem. Lines that name no split go to test if their number (from 1) divides by
    /// five, to train otherwise. Empty lines are skipped.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read; [`Error::File`] with the line's number when a line is no such pair, has an empty prompt or
    /// answer, equal prompts or equal answers, is longer than 1 MiB or is not UTF-8; and when a split has no pairs.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let mut reader = BufReader::new(open_input(path)?);
        let (mut train, mut test) = (Vec::new(), Vec::new());
        for number in 1.. {
            let mut bytes = Vec::new();
            let read = reader.by_ref().take(LONGEST_LINE + 1).read_until(b'\n', &mut bytes);
            if read.map_err(|error| Error::io(path, error))? == 0 {
                break;
            }
            let wrong = |message: String| Error::file(path, format!("line {number}: {message}"));
            if bytes.len() as u64 > LONGEST_LINE {
                return Err(wrong(format!("longer than {LONGEST_LINE} bytes")));
            }
            if number == 1 {
                if let Some(message) = utf16(&bytes) {
                    return Err(Error::file(path, message));
                }
                bytes.drain(..bytes.len() - without_mark(&bytes).len());
            }
            let text = std::str::from_utf8(&bytes).map_err(|error| wrong(format!("not UTF-8: {error}")))?;
            if text.trim().is_empty() {
                continue;
            }
            let line: PairLine = serde_json::from_str(text).map_err(|error| wrong(format!("not a pair: {error}")))?;
            let part = line.split.unwrap_or(if number % 5 == 0 { SplitName::Test } else { SplitName::Train });
            let pair = pair(line, number).map_err(wrong)?;
            if part == SplitName::Train { train.push(pair) } else { test.push(pair) }
        }
        for (pairs, split) in [(&train, "train"), (&test, "test")] {
            if pairs.is_empty() {
                let message = format!("no pair is of the {split} split: give at least five lines, or name the `split`");
                return Err(Error::file(path, message));
            }
        }
        let name = path.file_stem().map_or_else(|| "task".into(), |stem| stem.to_string_lossy().into_owned());
        let description = format!("pairs from {}", path.display());
        Ok(Self { name, description, same_length: false, variant: None, source: PairSource::File { train, test } })
    }

    /// Writes the first `count` pairs of each split of the stream `seed`, with the answers in variant `variant`, as a file that
    /// [`Task::from_file`] reads; whole or not at all.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be written.
    pub fn save(&self, path: impl AsRef<Path>, variant: usize, seed: u64, count: u64) -> Result<()> {
        let path = path.as_ref();
        write_atomic(path, |out| {
            for (split, part) in [(Split::Train, SplitName::Train), (Split::Test, SplitName::Test)] {
                for index in 0..count {
                    let Pair {
                        clean,
                        counterfactual,
                        target,
                        alternative,
                        after: [clean_after, counterfactual_after],
                        ..
                    } = self.pair_in(variant, split, seed, index);
                    let split = Some(part);
                    let line = PairLine {
                        clean,
                        counterfactual,
                        target,
                        alternative,
                        clean_after,
                        counterfactual_after,
                        split,
                    };
                    serde_json::to_writer(&mut *out, &line).map_err(|error| Error::io(path, error.into()))?;
                    out.write_all(b"\n").map_err(|error| Error::io(path, error))?;
                }
            }
            Ok(())
        })
    }
}

fn pair(line: PairLine, number: usize) -> Result<Pair, String> {
    let PairLine { clean, counterfactual, target, alternative, clean_after, counterfactual_after, .. } = line;
    let texts =
        [("positive", &clean), ("negative", &counterfactual), ("target", &target), ("alternative", &alternative)];
    if let Some((field, _)) = texts.iter().find(|(_, text)| text.is_empty()) {
        return Err(format!("`{field}` is empty"));
    }
    if target == alternative {
        return Err(format!("`target` and `alternative` are both {target:?}"));
    }
    if clean == counterfactual {
        return Err("`positive` and `negative` are the same prompt".into());
    }
    Ok(Pair {
        clean,
        counterfactual,
        target,
        alternative,
        after: [clean_after, counterfactual_after],
        template: number,
    })
}

/// Which of `len` pairs comes at `index`: a walk in steps that share no divisor with `len` meets each once in `len`.
pub(super) fn order(len: usize, seed: u64, index: u64) -> usize {
    let len = len.max(1) as u64;
    let mixed = (seed ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mut step = (mixed >> 33) % len;
    while common_divisor(step, len) != 1 {
        step += 1;
    }
    let start = (mixed ^ (mixed >> 29)) % len;
    let walked = u128::from(index) * u128::from(step) + u128::from(start);
    (walked % u128::from(len)) as usize
}

fn common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

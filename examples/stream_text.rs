//! Streams generated text through a tokenizer, as `train --stream` does, and prints the speed and the
//! memory that it took, next to the speed of the `tokenizers` crate.
//!
//!     cargo run --release --example stream_text -- FOLDER 10     # gigabytes of text
//!
//! `--quick` instead of the gigabytes: a few megabytes.

use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Instant;

use gossamer::observer::Observer;
use gossamer::prelude::*;
use gossamer::text::python;
use gossamer::text::source::Source;
use gossamer::text::stream::{StreamSettings, TokenStream};

/// Bytes that the tokenizer is trained on, and that the crate encodes.
const SAMPLE: u64 = 10_000_000;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (folder, size) = (arguments.next().ok_or("name a folder")?, arguments.next().ok_or("how many gigabytes?")?);
    let quick = size == "--quick";
    let bytes = if quick { 4e6 } else { size.parse::<f64>()? * 1e9 };
    let shard_tokens = if quick { 1 << 18 } else { 1 << 24 };
    let folder = Path::new(&folder);
    std::fs::create_dir_all(folder)?;
    let path = folder.join("text.txt");
    let documents = write_text(&path, bytes as u64)?;

    let source = Source::new([&path]);
    let observer = Observer::default();
    let sample = source.head(SAMPLE.min(bytes as u64), &observer)?;
    let tokenizer = Tokenizer::train(sample.iter().cloned(), if quick { 512 } else { 2048 }, &observer)?;

    // One pass, as fast as shards are made. Few documents are held out.
    let start = Instant::now();
    let settings = StreamSettings { shard_tokens, val_fraction: 0.002, maker: true };
    let stream = TokenStream::open(&source, &tokenizer, folder.join("cache"), &settings, &observer)?;
    println!("first shard after {:.1} s", start.elapsed().as_secs_f64());
    let (end, mut ends, mut tokens, mut number) = (tokenizer.end_of_text().ok_or("no end")?, 0, 0, 0);
    while ends < documents - documents / 100 {
        let shard = stream.shard(number, &observer)?;
        ends += shard.iter().filter(|&id| id == end).count() as u64;
        tokens += shard.len() as u64;
        number += 1;
    }
    let seconds = start.elapsed().as_secs_f64();
    let rate = |what: f64, seconds: f64| what / seconds / 1e6;
    println!(
        "{:.3} GB, {tokens} tokens, {number} shards in {seconds:.0} s: {:.2} million tokens/s, {:.1} MB/s",
        bytes / 1e9,
        rate(tokens as f64, seconds),
        rate(bytes, seconds)
    );
    if let Some(peak) = peak_memory() {
        println!("{peak} MiB of memory at most");
    }
    drop(stream);

    let theirs: tokenizers::Tokenizer = tokenizer.to_json()?.parse().map_err(|error| format!("{error}"))?;
    let (start, size) = (Instant::now(), sample.iter().map(String::len).sum::<usize>());
    let encoded = theirs.encode_batch_fast(sample, false).map_err(|error| format!("{error}"))?;
    let (seconds, tokens) = (start.elapsed().as_secs_f64(), encoded.iter().map(|e| e.len()).sum::<usize>());
    println!(
        "the tokenizers crate, {:.1} MB in memory: {:.2} million tokens/s, {:.1} MB/s",
        size as f64 / 1e6,
        rate(tokens as f64, seconds),
        rate(size as f64, seconds)
    );
    Ok(())
}

/// Writes generated programs of about `bytes` bytes, and returns how many.
fn write_text(path: &Path, bytes: u64) -> std::io::Result<u64> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let (mut written, mut documents) = (0, 0);
    for document in python::documents(0) {
        if written >= bytes {
            break;
        }
        let text = format!("# {documents}\n{document}<|endoftext|>\n");
        written += text.len() as u64;
        documents += 1;
        out.write_all(text.as_bytes())?;
    }
    out.flush()?;
    Ok(documents)
}

/// The most memory that the process had, in MiB, where the system says it.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? / 1024)
}

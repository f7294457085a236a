//! Compressed files and tables. The `.parquet` files of `tests/data/tables` were written by pyarrow;
//! each holds [`STORIES`] in the column `story`.

use std::io::Write;
use std::path::{Path, PathBuf};

use gossamer::Error;
use gossamer::observer::Observer;
use gossamer::text::corpus::{Corpus, SkippedDocuments, Source};
use tempfile::TempDir;

use super::{documents, tokenizer, write};

/// The documents of the column `story`, whose rows are these, a null, an empty text, and one text
/// with two documents.
const STORIES: [&str; 7] = ["Once upon a time.", "Zwei\nZeilen é中🙂", "a", "b", "Once upon a time.", LONG, "last"];

const LONG: &str = match std::str::from_utf8(&[b'x'; 300]) {
    Ok(text) => text,
    Err(_) => "",
};

fn read(source: &Source) -> (Vec<String>, SkippedDocuments) {
    let mut documents = source.documents().unwrap();
    let texts = documents.by_ref().map(Result::unwrap).collect();
    (texts, documents.skipped())
}

fn message(source: &Source) -> String {
    let documents = source.documents().and_then(Iterator::collect::<Result<Vec<_>, _>>);
    documents.unwrap_err().to_string()
}

fn table(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tables").join(name)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

/// `Plain text` on two lines, as `xz` writes it.
const XZ: &[u8] = include_bytes!("../data/tables/text.txt.xz");

#[test]
fn compressed_files_are_read_as_what_they_hold() {
    let folder = TempDir::new().unwrap();
    let text = "One.<|endoftext|>Two.";
    write(&folder, "a.txt.gz", gzip(text.as_bytes()));
    // Several members, as `cat a.gz b.gz` makes them.
    write(&folder, "b.jsonl.GZ", [gzip(b"{\"text\": \"th"), gzip(b"ree\"}\n")].concat());
    write(&folder, "c.txt.xz", XZ);
    write(&folder, "d.rs.gz", gzip(b"no text"));
    let (texts, skipped) = read(&Source::new([folder.path()]));
    assert_eq!(texts, ["One.", "Two.", "three", "Plain\ntext\n"]);
    assert_eq!(skipped, SkippedDocuments::default());
}

#[cfg(feature = "datasets")]
#[test]
fn zstandard_is_read() {
    let folder = TempDir::new().unwrap();
    let packed = |text: &str| zstd::stream::encode_all(text.as_bytes(), 3).unwrap();
    let path = write(&folder, "a.csv.zst", [packed("text,id\n"), packed("one,1\n\"t,wo\",2\n")].concat());
    assert_eq!(read(&Source::new([path])).0, ["one", "t,wo"]);
}

#[test]
fn damaged_archives_are_errors_that_name_the_file() {
    let folder = TempDir::new().unwrap();
    let whole = gzip("text".repeat(1000).as_bytes());
    for (name, bytes) in [
        ("cut.txt.gz", &whole[..whole.len() - 9]),
        ("no.txt.gz", b"plain text"),
        ("cut.txt.xz", &XZ[..XZ.len() - 20]),
        ("no.txt.xz", b"plain text"),
    ] {
        let path = write(&folder, name, bytes);
        let error = Source::new([&path]).documents().and_then(Iterator::collect::<Result<Vec<_>, _>>);
        assert!(matches!(&error, Err(Error::File { path: named, .. }) if *named == path), "{name}: {error:?}");
    }
}

#[test]
fn separated_values_have_a_column_of_text() {
    let folder = TempDir::new().unwrap();
    let csv = "\u{feff}id,text ,more\r\n1,\"Say \"\"hi\"\"\nto, me\",x\r\n2\r\n3,,\r\n4,a<|endoftext|>b,\r\n";
    let path = write(&folder, "a.csv", csv);
    let (texts, skipped) = read(&Source::new([&path]));
    assert_eq!(texts, ["Say \"hi\"\nto, me", "a", "b"]);
    assert_eq!(skipped, SkippedDocuments { no_text: 1, empty: 1, ..SkippedDocuments::default() });
    assert_eq!(read(&Source::new([&path]).with_field("more")).0, ["x"]);
    let path = write(&folder, "b.tsv", "story\tid\none, two\t1\n");
    assert_eq!(read(&Source::new([&path]).with_field("story")).0, ["one, two"]);
    let message = message(&Source::new([&path]));
    assert!(
        message.contains("b.tsv") && message.contains("story, id") && message.contains("--text-field"),
        "{message}"
    );
}

#[test]
fn lines_may_have_their_text_in_any_field() {
    let folder = TempDir::new().unwrap();
    let lines =
        "{\"text\": \"no\", \"story\": \"yes\"}\n{\"text\": \"no\"}\n{\"story\": 3}\n{\"st\\u006fry\": \"too\"}\n";
    let path = write(&folder, "a.jsonl", lines);
    let (texts, skipped) = read(&Source::new([path]).with_field("story"));
    assert_eq!(texts, ["yes", "too"]);
    assert_eq!(skipped, SkippedDocuments { no_text: 2, ..SkippedDocuments::default() });
}

#[test]
fn tables_in_folders_are_left_out_if_they_lack_the_column() {
    let folder = TempDir::new().unwrap();
    write(&folder, "a.csv", "id,name\n1,x\n");
    write(&folder, "b.csv", "id,text\n1,x\n");
    assert_eq!(read(&Source::new([folder.path()])).0, ["x"]);
}

#[test]
fn the_corpus_depends_on_the_contents_and_the_field() {
    let folder = TempDir::new().unwrap();
    let lines: Vec<_> = documents(9)
        .iter()
        .map(|text| serde_json::json!({ "text": text, "other": format!("{text}!") }).to_string())
        .collect();
    let path = write(&folder, "a.jsonl", lines.join("\n"));
    let copy = write(&folder, "b/copy.jsonl", lines.join("\n"));
    let packed = write(&folder, "c.jsonl.gz", gzip(lines.join("\n").as_bytes()));
    let prepare = |source: Source| {
        Corpus::prepare(&source, tokenizer(), folder.path().join("cache"), 0.2, &Observer::default()).unwrap()
    };
    let first = prepare(Source::new([&path]));
    assert!(!first.cached);
    let again = prepare(Source::new([copy]));
    assert!(again.cached && again.key == first.key);
    let other = prepare(Source::new([&path]).with_field("other"));
    assert!(!other.cached && other.key != first.key);
    let packed = prepare(Source::new([packed]));
    assert_eq!(super::all(&packed.train), super::all(&first.train));
}

#[cfg(feature = "datasets")]
mod parquet {
    use super::*;

    #[test]
    fn every_kind_of_page_gives_the_same_documents() {
        for name in ["zstd.parquet", "snappy.parquet", "gzip.parquet", "delta.parquet"] {
            let (texts, skipped) = read(&Source::new([table(name)]).with_field("story"));
            assert_eq!(texts, STORIES, "{name}");
            let counted = SkippedDocuments { no_text: 1, empty: 1, ..SkippedDocuments::default() };
            assert_eq!(skipped, counted, "{name}");
        }
    }

    #[test]
    fn columns_may_be_nested_and_large() {
        let nested = || Source::new([table("nested.parquet")]);
        assert_eq!(read(&nested().with_field("story")).0, ["one", "two"]);
        assert_eq!(read(&nested().with_field("meta.text")).0, ["p", "q"]);
    }

    #[test]
    fn what_is_no_text_is_refused() {
        let with = |name: &str, field: &str| message(&Source::new([table(name)]).with_field(field));
        let lacking = with("zstd.parquet", "text");
        assert!(lacking.contains("zstd.parquet") && lacking.contains("id, story"), "{lacking}");
        assert!(with("zstd.parquet", "id").contains("holds INT64, not text"));
        assert!(with("zstd.parquet", "tags.list.element").contains("lists of"));
        let brotli = with("brotli.parquet", "story");
        assert!(brotli.contains("only snappy, gzip and zstd"), "{brotli}");
    }

    /// Every byte of small files, changed: an error that names the file, or documents.
    #[test]
    fn damaged_files_neither_panic_nor_allocate_what_they_claim() {
        let folder = TempDir::new().unwrap();
        for name in ["zstd.parquet", "snappy.parquet", "gzip.parquet", "delta.parquet"] {
            let whole = std::fs::read(table(name)).unwrap();
            for at in 0..whole.len() {
                let mut bytes = whole.clone();
                bytes[at] ^= [0x01, 0x80, 0xff][at % 3];
                let path = write(&folder, "damaged.parquet", bytes);
                let source = Source::new([&path]).with_field("story");
                match source.documents().and_then(Iterator::collect::<Result<Vec<_>, _>>) {
                    Ok(_) | Err(Error::Unknown { .. }) => {}
                    Err(Error::File { path: named, .. }) => assert_eq!(named, path),
                    Err(other) => panic!("{name}, byte {at}: {other}"),
                }
            }
        }
    }
}

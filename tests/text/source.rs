use std::path::Path;

use gossamer::Error;
use gossamer::observer::Observer;
use gossamer::text::corpus::{Corpus, SkippedDocuments, Source};
use tempfile::TempDir;

use super::{documents, names, tokenizer, write};

/// The documents of what is in `folder`, and what was said of them.
fn read(folder: &TempDir) -> (Vec<String>, SkippedDocuments, u64) {
    let mut documents = Source::new([folder.path()]).documents().unwrap();
    let texts = documents.by_ref().map(Result::unwrap).collect();
    (texts, documents.skipped(), documents.separators())
}

#[test]
fn folders_are_walked_in_order() {
    let folder = TempDir::new().unwrap();
    for name in
        ["b.py", "a/z.TXT", "a.txt", "c.rs", ".hidden.py", ".git/x.py", "site-packages/x.py", "a/__pycache__/x.py"]
    {
        write(&folder, name, name);
    }
    write(&folder, "node_modules/x.py", "x");
    write(&folder, "d.jsonl", "{\"text\": \"one\"}\n\n{\"id\": 3, \"text\": \"two\"}");
    write(&folder, "empty.py", "");
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(folder.path(), folder.path().join("a/loop")).unwrap();
        std::os::unix::fs::symlink("nowhere", folder.path().join("broken.py")).unwrap();
    }
    let mut documents = Source::new([folder.path()]).documents().unwrap();
    let texts: Vec<String> = documents.by_ref().map(Result::unwrap).collect();
    assert_eq!(texts, ["a/z.TXT", "a.txt", "b.py", "one", "two"]);
    assert_eq!((documents.skipped().empty, documents.skipped().not_utf8), (1, 0));
    // Named, a folder or file is read whatever it is called, and in the order named.
    let named = Source::new([folder.path().join("site-packages"), folder.path().join(".hidden.py")]);
    let texts: Vec<String> = named.documents().unwrap().map(Result::unwrap).collect();
    assert_eq!(texts, ["site-packages/x.py", ".hidden.py"]);
}

#[test]
fn sources_say_what_is_wrong_and_where() {
    let folder = TempDir::new().unwrap();
    let prepare = |path: &Path| {
        Corpus::prepare(&Source::new([path]), tokenizer(), folder.path().join("cache"), 0.1, &Observer::default())
    };

    let missing = folder.path().join("missing");
    assert!(matches!(prepare(&missing), Err(Error::Io { path, .. }) if path == missing));
    let odd = write(&folder, "odd.doc", "x");
    assert!(matches!(prepare(&odd), Err(Error::File { path, .. }) if path == odd));
    let nothing = [
        ("{\"text\": ", "1 skipped that are not JSON objects"),
        ("x", "not JSON objects"),
        ("[\"x\"]", "not JSON objects"),
        ("{\"text\": 3}", "1 skipped that have no string in the text field"),
        ("{\"text\": null}", "have no string in the text field"),
        ("{\"txt\": \"x\"}", "have no string in the text field"),
        ("{\"text\": \"\\ud800\"}", "1 skipped that have half of a surrogate pair"),
        ("{\"text\": \"\\ud800x\"}", "half of a surrogate pair"),
        ("{\"text\": \"\\udc00\"}", "half of a surrogate pair"),
    ];
    for (line, why) in nothing {
        let message = prepare(&write(&folder, "lines.jsonl", line)).unwrap_err().to_string();
        assert!(message.contains("no documents") && message.contains(why), "{line}: {message}");
    }
    let empty = write(&folder, "empty/empty.py", "");
    write(&folder, "empty/binary.py", b"\xff");
    let message = prepare(empty.parent().unwrap()).unwrap_err().to_string();
    assert!(message.contains("no documents") && message.contains("1 skipped"), "{message}");
    let message = prepare(&write(&folder, "blank.jsonl", "\n\n")).unwrap_err().to_string();
    assert!(message.contains("blank.jsonl"), "{message}");
    assert_eq!(names(&folder.path().join("cache")), [""; 0], "failures must leave nothing behind");
    let nothing = Corpus::from_documents(
        [String::new()],
        tokenizer(),
        folder.path().join("cache"),
        0.1,
        "nothing",
        &Observer::default(),
    );
    assert!(nothing.unwrap_err().to_string().contains("nothing"));
    for fraction in [0.0, 1.0, -1.0, f64::NAN] {
        let refused =
            Corpus::from_documents(documents(3), tokenizer(), folder.path(), fraction, "x", &Observer::default());
        assert!(matches!(refused, Err(Error::Config { key, .. }) if key == "val_fraction"));
    }
    let file = write(&folder, "file", "");
    let refused = Corpus::from_documents(documents(3), tokenizer(), file.join("cache"), 0.1, "x", &Observer::default());
    assert!(matches!(refused, Err(Error::Io { path, .. }) if path.starts_with(&file)));
}

#[test]
fn a_sample_is_spread_evenly_and_bounded() {
    let folder = TempDir::new().unwrap();
    for n in 10..60 {
        write(&folder, &format!("{n}.txt"), format!("{n}é").repeat(25));
    }
    let source = Source::new([folder.path()]);
    let sample = source.sample(1000, &Observer::default()).unwrap();
    assert_eq!(sample, source.sample(1000, &Observer::default()).unwrap());
    assert_eq!(sample.iter().map(String::len).sum::<usize>(), 1000);
    let firsts: Vec<&str> = sample.iter().map(|text| &text[..2]).collect();
    assert_eq!(firsts, ["10", "15", "20", "25", "30", "35", "40", "45", "50", "55"]);
    assert_eq!(source.sample(5000, &Observer::default()).unwrap().len(), 50);
    // Fifteen bytes end inside a character.
    assert_eq!(source.sample(15, &Observer::default()).unwrap(), ["10é10é10é10"[..14].to_string()]);
}

#[test]
fn ends_of_text_divide_documents_in_txt_and_text_fields() {
    let folder = TempDir::new().unwrap();
    write(&folder, "a.txt", "One.\n<|endoftext|>\nTwo <|b|> a>b.<|endoftext|>Three.\r\n<|endoftext|>\r\n\n");
    write(&folder, "b.txt", "<|endoftext|>Four.<|endoftext|> <|endoftext|>Five.");
    write(&folder, "c.py", "x = '<|endoftext|>'\n");
    write(&folder, "d.jsonl", "{\"text\": \"Six.<|endoftext|>\\nSeven.<|endoftext|>\"}\n{\"text\": \"Eight.\"}");
    let (texts, skipped, separators) = read(&folder);
    let stories = ["One.\n", "Two <|b|> a>b.", "Three.\r\n", "Four.", "Five."];
    assert_eq!(texts, [&stories[..], &["x = '<|endoftext|>'\n", "Six.", "Seven.", "Eight."]].concat());
    // Nothing before the first in b.txt, and a blank between two.
    assert_eq!((skipped, separators), (SkippedDocuments { empty: 2, ..SkippedDocuments::default() }, 8));
}

#[test]
fn four_hundred_stories_are_four_hundred_documents() {
    let (folder, cache) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let stories: Vec<String> = (0..400).map(|n| format!("Story {n}.\nThe end.\n")).collect();
    let path = write(&folder, "stories.txt", stories.join("<|endoftext|>\n") + "<|endoftext|>\n");
    let source = Source::new([path]);
    let corpus = Corpus::prepare(&source, tokenizer(), cache.path(), 0.2, &Observer::default()).unwrap();
    let statistics = corpus.statistics;
    assert_eq!(
        (statistics.documents, statistics.separators, statistics.skipped),
        (400, 400, SkippedDocuments::default())
    );
    let again = Corpus::prepare(&source, tokenizer(), cache.path(), 0.2, &Observer::default()).unwrap();
    assert!(again.cached && again.statistics == statistics);
    let mut read = [super::texts(&corpus.train), super::texts(&corpus.validation)].concat();
    read.sort();
    let mut stories = stories;
    stories.sort();
    assert_eq!(read, stories);
}

#[test]
fn byte_order_marks_are_no_text() {
    let folder = TempDir::new().unwrap();
    write(&folder, "a.py", "\u{feff}x = 1\n");
    write(&folder, "b.txt", "\u{feff}one<|endoftext|>\u{feff}two");
    write(&folder, "c.jsonl", "\u{feff}{\"text\": \"three\"}\n{\"text\": \"four\"}\n");
    write(&folder, "d.txt", "\u{feff}");
    write(&folder, "e.txt", b"\xff\xfea\0b\0");
    let (texts, skipped, _) = read(&folder);
    assert_eq!(texts, ["x = 1\n", "one", "\u{feff}two", "three", "four"]);
    assert_eq!(skipped, SkippedDocuments { empty: 1, not_utf8: 1, ..SkippedDocuments::default() });
}

#[test]
fn lines_without_a_text_are_skipped_and_counted() {
    let folder = TempDir::new().unwrap();
    let lines: [&[u8]; 9] = [
        b"{\"text\": \"good\"}",
        b"{\"text\": null}",
        b"{\"text\": \"\\ud800\"}",
        b"{\"text\": \"broken",
        b"{\"text\": \"\xff\"}",
        b"",
        b"{\"text\": \"\"}",
        b"{\"id\": 7}",
        b"{\"text\": \"fine\"}",
    ];
    write(&folder, "lines.jsonl", lines.join(&b"\n"[..]));
    let (texts, skipped, _) = read(&folder);
    assert_eq!(texts, ["good", "fine"]);
    assert_eq!(skipped, SkippedDocuments { not_utf8: 1, empty: 1, not_json: 1, no_text: 2, surrogates: 1 });
}

#[test]
fn deep_folders_are_walked() {
    let folder = TempDir::new().unwrap();
    let deep = "d/".repeat(200);
    write(&folder, &format!("{deep}x.txt"), "deep");
    write(&folder, "a.txt", "first");
    assert_eq!(read(&folder).0, ["first", "deep"]);
}

#[test]
fn what_watches_a_source_can_stop_it() {
    let folder = TempDir::new().unwrap();
    let path = write(&folder, "a.txt", "x".repeat(1000));
    let stop = std::sync::atomic::AtomicBool::new(true);
    let observer = Observer::stopped_by(&stop);
    assert!(matches!(Source::new([&path]).sample(100, &observer), Err(Error::Stopped)));
    let cache = folder.path().join("cache");
    let stopped = Corpus::prepare(&Source::new([&path]), tokenizer(), &cache, 0.2, &observer);
    assert!(matches!(stopped, Err(Error::Stopped)));
    let stopped = Corpus::from_documents(documents(9), tokenizer(), &cache, 0.2, "nine", &observer);
    assert!(matches!(stopped, Err(Error::Stopped)));
    assert_eq!(names(&cache), [""; 0], "nothing half-written stays");
}

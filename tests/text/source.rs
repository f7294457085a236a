use std::path::Path;

use gossamer::Error;
use gossamer::text::corpus::{Corpus, Source};
use tempfile::TempDir;

use super::{documents, names, tokenizer, write};

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
    assert_eq!((documents.empty(), documents.not_utf8()), (1, 0));
    // Named, a folder or file is read whatever it is called, and in the order named.
    let named = Source::new([folder.path().join("site-packages"), folder.path().join(".hidden.py")]);
    let texts: Vec<String> = named.documents().unwrap().map(Result::unwrap).collect();
    assert_eq!(texts, ["site-packages/x.py", ".hidden.py"]);
}

#[test]
fn sources_say_what_is_wrong_and_where() {
    let folder = TempDir::new().unwrap();
    let prepare = |path: &Path| Corpus::prepare(&Source::new([path]), tokenizer(), folder.path().join("cache"), 0.1);

    let missing = folder.path().join("missing");
    assert!(matches!(prepare(&missing), Err(Error::Io { path, .. }) if path == missing));
    let odd = write(&folder, "odd.csv", "x");
    assert!(matches!(prepare(&odd), Err(Error::File { path, .. }) if path == odd));
    for line in ["{\"text\": ", "{\"text\": 3}", "{\"txt\": \"x\"}", "[\"x\"]", "x", "{\"text\": \"\\ud800\"}"] {
        let lines = write(&folder, "lines.jsonl", format!("{{\"text\": \"good\"}}\n\n{line}\n"));
        let error = prepare(&lines).unwrap_err();
        assert!(
            matches!(&error, Error::File { path, message } if *path == lines && message.starts_with("line 3 ")),
            "{error}"
        );
    }
    let empty = write(&folder, "empty/empty.py", "");
    write(&folder, "empty/binary.py", b"\xff");
    let message = prepare(empty.parent().unwrap()).unwrap_err().to_string();
    assert!(message.contains("no documents") && message.contains("1 skipped"), "{message}");
    let message = prepare(&write(&folder, "blank.jsonl", "\n\n")).unwrap_err().to_string();
    assert!(message.contains("blank.jsonl"), "{message}");
    assert_eq!(names(&folder.path().join("cache")), [""; 0], "failures must leave nothing behind");
    let nothing = Corpus::from_documents([String::new()], tokenizer(), folder.path().join("cache"), 0.1, "nothing");
    assert!(nothing.unwrap_err().to_string().contains("nothing"));
    for fraction in [0.0, 1.0, -1.0, f64::NAN] {
        let refused = Corpus::from_documents(documents(3), tokenizer(), folder.path(), fraction, "x");
        assert!(matches!(refused, Err(Error::Config { key, .. }) if key == "val_fraction"));
    }
    let file = write(&folder, "file", "");
    let refused = Corpus::from_documents(documents(3), tokenizer(), file.join("cache"), 0.1, "x");
    assert!(matches!(refused, Err(Error::Io { path, .. }) if path.starts_with(&file)));
}

#[test]
fn a_sample_is_spread_evenly_and_bounded() {
    let folder = TempDir::new().unwrap();
    for n in 10..60 {
        write(&folder, &format!("{n}.txt"), format!("{n}é").repeat(25));
    }
    let source = Source::new([folder.path()]);
    let sample = source.sample(1000).unwrap();
    assert_eq!(sample, source.sample(1000).unwrap());
    assert_eq!(sample.iter().map(String::len).sum::<usize>(), 1000);
    let firsts: Vec<&str> = sample.iter().map(|text| &text[..2]).collect();
    assert_eq!(firsts, ["10", "15", "20", "25", "30", "35", "40", "45", "50", "55"]);
    assert_eq!(source.sample(5000).unwrap().len(), 50);
    // Fifteen bytes end inside a character.
    assert_eq!(source.sample(15).unwrap(), ["10é10é10é10"[..14].to_string()]);
}

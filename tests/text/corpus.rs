use std::collections::BTreeSet;
use std::fs;

use gossamer::Error;
use gossamer::observer::Observer;
use gossamer::text::cache::Tokens;
use gossamer::text::corpus::{Corpus, Source};
use gossamer::text::tokenizer::{END_OF_TEXT, Tokenizer};
use tempfile::TempDir;

use super::{VOCAB, all, documents, names, texts, tokenizer, write};

#[test]
fn corpora_are_tokenised_once() {
    let (folder, cache) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let documents = documents(40);
    for (n, text) in documents.iter().enumerate() {
        write(&folder, &format!("{n:02}.py"), text);
    }
    write(&folder, "binary.py", b"x = '\xff'");
    write(&folder, "zero.py", "");
    write(&folder, "lines.jsonl", b"{\"text\": \"in a line\"}\n{\"text\": \"\xff\"}\n");
    let source = Source::new([folder.path()]);
    let prepare = || Corpus::prepare(&source, tokenizer(), cache.path(), 0.2, &Observer::default()).unwrap();

    let first = prepare();
    assert!(!first.cached);
    let statistics = first.statistics;
    assert_eq!((statistics.documents, statistics.skipped.not_utf8, statistics.skipped.empty), (41, 2, 1));
    assert_eq!(statistics.bytes, documents.iter().map(|text| text.len() as u64).sum::<u64>() + 9);
    assert_eq!(statistics.tokens, (first.train.len() + first.validation.len()) as u64);

    // Each side is its documents in order, each as the tokenizer encodes it.
    let train = texts(&first.train);
    let mut expected = Vec::new();
    for text in documents.iter().chain([&"in a line".to_string()]).filter(|&text| train.contains(text)) {
        expected.extend(tokenizer().encode(text).unwrap());
        expected.push(VOCAB as u32 - 1);
    }
    assert_eq!(all(&first.train), expected);
    assert_eq!(first.train.max_id(), VOCAB as u32 - 1);

    let second = prepare();
    assert!(second.cached);
    assert_eq!((second.statistics, &second.key), (statistics, &first.key));
    assert_eq!((all(&second.train), all(&second.validation)), (all(&first.train), all(&first.validation)));

    // What does not change the documents does not change the key; what does, does.
    fs::rename(folder.path().join("00.py"), folder.path().join("000.py")).unwrap();
    assert!(prepare().cached);
    assert!(!Corpus::prepare(&source, tokenizer(), cache.path(), 0.3, &Observer::default()).unwrap().cached);
    let other = Tokenizer::train(documents.clone().into_iter(), VOCAB - 1, &Observer::default()).unwrap();
    assert!(!Corpus::prepare(&source, &other, cache.path(), 0.2, &Observer::default()).unwrap().cached);
    write(&folder, "01.py", "changed");
    assert!(!prepare().cached);
    assert_eq!(names(cache.path()).len(), 8, "two files a corpus and nothing else");
}

#[test]
fn damaged_caches_are_rebuilt_under_a_living_map() {
    let cache = TempDir::new().unwrap();
    let corpus = || {
        Corpus::from_documents(documents(30), tokenizer(), cache.path(), 0.2, "thirty", &Observer::default()).unwrap()
    };
    let first = corpus();
    let tokens = (all(&first.train), all(&first.validation));
    for name in names(cache.path()) {
        let path = cache.path().join(name);
        let whole = fs::read(&path).unwrap();
        let mut flipped = whole.clone();
        flipped[100] ^= 1;
        let mut longer = whole.clone();
        longer.push(0);
        let mut newer = whole.clone();
        newer[8] += 1;
        for damaged in [&whole[..whole.len() - 1], &whole[..40], &[], &flipped, &longer, &newer] {
            // As damage does, in a file of its own: the maps of the old one must stay whole.
            fs::remove_file(&path).unwrap();
            fs::write(&path, damaged).unwrap();
            let again = corpus();
            assert!(!again.cached);
            assert_eq!((all(&again.train), all(&again.validation)), tokens);
            assert_eq!(fs::read(&path).unwrap(), whole);
        }
    }
    assert!(corpus().cached);
    assert_eq!((all(&first.train), all(&first.validation)), tokens);
}

#[test]
fn cached_documents_are_not_asked_for() {
    let cache = TempDir::new().unwrap();
    let make = |documents: Vec<String>, key: &str| {
        Corpus::from_documents(documents, tokenizer(), cache.path(), 0.5, key, &Observer::default()).unwrap()
    };
    let first = make(documents(9), "nine");
    let never = std::iter::from_fn(|| -> Option<String> { panic!("asked") });
    let second = Corpus::from_documents(never, tokenizer(), cache.path(), 0.5, "nine", &Observer::default()).unwrap();
    assert!(second.cached && second.statistics == first.statistics && second.statistics.documents == 9);
    assert!(!make(documents(9), "another nine").cached);
}

#[test]
fn the_sides_share_no_document() {
    let cache = TempDir::new().unwrap();
    let mut copies = documents(500);
    copies.extend(documents(500));
    let corpus =
        Corpus::from_documents(copies.clone(), tokenizer(), cache.path(), 0.2, "copies", &Observer::default()).unwrap();
    let (train, validation) = (texts(&corpus.train), texts(&corpus.validation));
    assert_eq!(train.len() + validation.len(), 1000);
    let (train, validation): (BTreeSet<_>, BTreeSet<_>) =
        (train.into_iter().collect(), validation.into_iter().collect());
    assert!(train.is_disjoint(&validation));
    assert_eq!(train.len() + validation.len(), 500);
    // 500 draws at 0.2: mean 100, standard deviation 9.
    assert!((64..=136).contains(&validation.len()), "{}", validation.len());

    // A document's side depends on it alone, not on its company.
    let half =
        Corpus::from_documents(documents(250), tokenizer(), cache.path(), 0.2, "half", &Observer::default()).unwrap();
    assert!(texts(&half.train).iter().all(|text| train.contains(text)));
    assert!(texts(&half.validation).iter().all(|text| validation.contains(text)));
}

#[test]
fn neither_side_is_empty() {
    let cache = TempDir::new().unwrap();
    for fraction in [1e-9, 0.5, 1.0 - 1e-9] {
        for count in 2..6 {
            let mut copies = documents(count);
            copies.push(copies[0].clone());
            let key = format!("{count} {fraction}");
            let corpus =
                Corpus::from_documents(copies.clone(), tokenizer(), cache.path(), fraction, &key, &Observer::default())
                    .unwrap();
            let (train, validation) = (texts(&corpus.train), texts(&corpus.validation));
            assert!(!train.is_empty() && !validation.is_empty());
            assert!(train.iter().all(|text| !validation.contains(text)));
            let mut together = [train, validation].concat();
            together.sort();
            copies.sort();
            assert_eq!(together, copies);
        }
        // One document, however often: cut by position.
        for (times, text) in [(1, "x".to_string()), (1, documents(1).concat()), (3, documents(1).concat())] {
            let key = format!("{times} {fraction} {text}");
            let copies = std::iter::repeat_n(text.clone(), times);
            let corpus =
                Corpus::from_documents(copies, tokenizer(), cache.path(), fraction, &key, &Observer::default())
                    .unwrap();
            let mut ids = tokenizer().encode(&text).unwrap();
            ids.push(VOCAB as u32 - 1);
            let ids = ids.repeat(times);
            assert_eq!([all(&corpus.train), all(&corpus.validation)].concat(), ids);
            let expected = ((ids.len() as f64 * fraction).round() as usize).clamp(1, ids.len() - 1);
            assert_eq!(corpus.validation.len(), expected);
        }
    }
}

#[test]
fn large_vocabularies_take_four_bytes_and_tokenizers_need_an_end() {
    let cache = TempDir::new().unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&tokenizer().to_json().unwrap()).unwrap();
    for id in 300..70_000 {
        json["model"]["vocab"][format!("q{id}")] = id.into();
    }
    json["added_tokens"][0]["id"] = 70_000.into();
    json["model"]["vocab"][END_OF_TEXT] = 70_000.into();
    let large = Tokenizer::from_json(&json.to_string()).unwrap();
    assert_eq!((large.vocab_size(), large.end_of_text()), (70_001, Some(70_000)));
    let corpus =
        Corpus::from_documents(documents(20), &large, cache.path(), 0.2, "large", &Observer::default()).unwrap();
    assert_eq!(corpus.train.max_id(), 70_000);
    assert_eq!(
        all(&corpus.train).iter().filter(|&&id| id == 70_000).count()
            + all(&corpus.validation).iter().filter(|&&id| id == 70_000).count(),
        20
    );

    json["added_tokens"] = serde_json::json!([]);
    json["model"]["vocab"].as_object_mut().unwrap().remove(END_OF_TEXT);
    let endless = Tokenizer::from_json(&json.to_string()).unwrap();
    assert_eq!(endless.end_of_text(), None);
    let message = Corpus::from_documents(documents(2), &endless, cache.path(), 0.2, "endless", &Observer::default())
        .unwrap_err()
        .to_string();
    assert!(message.contains(END_OF_TEXT), "{message}");
}

#[test]
fn tokens_are_read_within_bounds() {
    let tokens = Tokens::from_ids(&[7, 70_000, 3]);
    assert_eq!((tokens.len(), tokens.max_id(), tokens.is_empty()), (3, 70_000, false));
    let mut two = [0; 2];
    tokens.copy_into(1, &mut two).unwrap();
    assert_eq!(two, [70_000, 3]);
    assert_eq!(tokens.get(3..3).unwrap(), [0u32; 0]);
    assert!(matches!(tokens.copy_into(2, &mut two), Err(Error::Data(_))));
    assert!(matches!(tokens.get(usize::MAX - 1..usize::MAX), Err(Error::Data(_))));
    assert!(Tokens::from_ids(&[]).is_empty());
}

#[test]
fn two_at_once_make_one_corpus() {
    let cache = TempDir::new().unwrap();
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let both = std::sync::Barrier::new(2);
    let corpora = std::thread::scope(|scope| {
        let threads = [0, 1].map(|_| {
            scope.spawn(|| {
                both.wait();
                let documents = documents(200).into_iter().inspect(|_| {
                    asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    std::thread::sleep(std::time::Duration::from_millis(1));
                });
                Corpus::from_documents(documents, tokenizer(), cache.path(), 0.2, "both", &Observer::default()).unwrap()
            })
        });
        threads.map(|thread| thread.join().unwrap())
    });
    assert_eq!(asked.into_inner(), 200, "the second one did not wait for the first");
    assert_eq!(corpora.iter().filter(|corpus| corpus.cached).count(), 1);
    assert_eq!(all(&corpora[0].train), all(&corpora[1].train));
    assert_eq!(std::fs::read_dir(cache.path()).unwrap().count(), 2);
}

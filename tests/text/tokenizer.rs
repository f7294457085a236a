use std::collections::BTreeSet;
use std::fs;

use gossamer::Error;
use gossamer::observer::Observer;
use gossamer::text::notation::{lossless, token, unknown};
use gossamer::text::tokenizer::{END_OF_TEXT, Tokenizer};
use proptest::prelude::*;
use serde_json::json;
use tempfile::TempDir;

use super::{VOCAB, documents, names, tokenizer};

#[test]
fn every_byte_has_a_token_and_end_of_text_is_last() {
    let tokenizer = tokenizer();
    assert_eq!(tokenizer.vocab_size(), VOCAB);
    assert_eq!(tokenizer.end_of_text(), Some(VOCAB as u32 - 1));
    let bytes: BTreeSet<Vec<u8>> = (0..256).map(|id| tokenizer.token_bytes(id).unwrap()).collect();
    assert_eq!(bytes, (0..=255u8).map(|byte| vec![byte]).collect());
    assert_eq!(tokenizer.token_bytes(VOCAB as u32), None);
    assert_eq!(tokenizer.token_str(VOCAB as u32 - 1).as_deref(), Some(END_OF_TEXT));
}

#[test]
fn the_most_frequent_pair_is_merged_first() {
    // Pairs of "ab", " ab", " ab", " cd": a+b three times, space+a twice, the others once.
    let tokenizer = Tokenizer::train(["ab ab ab cd".to_string()].into_iter(), 258, &Observer::default()).unwrap();
    assert_eq!(tokenizer.single_token("ab"), Some(256));
    assert_eq!(tokenizer.encode("abcab").unwrap()[..1], [256]);
    assert_eq!(tokenizer.end_of_text(), Some(257));
    assert_eq!(tokenizer.single_token(" ab"), None);
    assert_eq!(tokenizer.single_token(""), None);
}

#[test]
fn text_is_cut_by_the_published_pattern() {
    let text = "foo(a):\n    return x12345 'b'  \n\n//x";
    // With every merge that the text gives, each piece of it is one token.
    let most = (257..400)
        .map_while(|size| Tokenizer::train([text.to_string()].into_iter(), size, &Observer::default()).ok())
        .last()
        .unwrap();
    let pieces: Vec<String> = most.encode(text).unwrap().iter().map(|&id| most.decode(&[id]).unwrap()).collect();
    assert_eq!(pieces, ["foo", "(a", "):\n", "   ", " return", " x", "123", "45", " '", "b", "'", "  \n\n", "//", "x"]);
}

#[test]
fn training_refuses_what_it_cannot_do() {
    let tiny = || ["abc".to_string()].into_iter();
    assert!(
        matches!(Tokenizer::train(tiny(), 256, &Observer::default()), Err(Error::Config { key, .. }) if key == "vocab_size")
    );
    // 256 bytes, "ab", "abc", end of text.
    let message = Tokenizer::train(tiny(), 300, &Observer::default()).unwrap_err().to_string();
    assert!(message.contains("259") && message.contains("300"), "{message}");
    assert_eq!(Tokenizer::train(tiny(), 259, &Observer::default()).unwrap().vocab_size(), 259);
    assert_eq!(Tokenizer::train(std::iter::empty(), 257, &Observer::default()).unwrap().encode("ab").unwrap().len(), 2);
}

#[test]
fn training_is_deterministic() {
    let mut backwards = documents(100);
    backwards.reverse();
    for (threads, documents) in [(1, documents(100)), (4, backwards)] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let again = pool.install(|| Tokenizer::train(documents.into_iter(), VOCAB, &Observer::default())).unwrap();
        assert_eq!(again.to_json().unwrap(), tokenizer().to_json().unwrap());
        assert_eq!(again.hash(), tokenizer().hash());
    }
    let other = Tokenizer::train(documents(100).into_iter(), VOCAB - 1, &Observer::default()).unwrap();
    assert_ne!(other.hash(), tokenizer().hash());
}

proptest! {
    #[test]
    fn decoding_undoes_encoding(text in any::<String>()) {
        let ids = tokenizer().encode(&text).unwrap();
        prop_assert_eq!(tokenizer().decode(&ids).unwrap(), text);
    }

    #[test]
    fn decoding_undoes_encoding_of_code(text in "([ \t\r\n]{0,3}(def|return|alpha|[0-9]|\\PC|[\\(\\):/'\"]{1,3})){0,60}") {
        let ids = tokenizer().encode(&text).unwrap();
        prop_assert_eq!(tokenizer().decode(&ids).unwrap(), text);
    }
}

#[test]
fn long_and_odd_texts_survive() {
    let code = documents(3000).concat();
    let texts =
        [code.clone(), " ".repeat(200_000) + "x", "\n".repeat(200_000), "x".repeat(200_000), END_OF_TEXT.repeat(3)];
    let reference: tokenizers::Tokenizer = tokenizer().to_json().unwrap().parse().unwrap();
    for (ids, text) in tokenizer().encode_batch(&texts).unwrap().iter().zip(&texts) {
        assert_eq!(&tokenizer().decode(ids).unwrap(), text);
        assert!(!ids.contains(&(VOCAB as u32 - 1)), "text must not forge a document's end");
    }
    // Pieces and cores must not show.
    assert_eq!(tokenizer().encode(&code).unwrap(), reference.encode(code, false).unwrap().get_ids());
}

/// What the crate makes of a text in one go, with the settings of `json` and these changes to its
/// parts.
fn both(parts: &[(&str, serde_json::Value)], text: &str) -> [Vec<u32>; 2] {
    let mut json: serde_json::Value = serde_json::from_str(&tokenizer().to_json().unwrap()).unwrap();
    for (name, part) in parts {
        json[name] = part.clone();
    }
    let json = json.to_string();
    let mut reference: tokenizers::Tokenizer = json.parse().unwrap();
    reference.set_encode_special_tokens(true);
    let ours = Tokenizer::from_json(&json).unwrap().encode(text).unwrap();
    [ours, reference.encode(text, false).unwrap().get_ids().to_vec()]
}

/// Text on one line, a few hundred kilobytes, with words longer than what is encoded at once.
fn odd_line() -> String {
    let words: Vec<String> =
        (0..9000).map(|n| format!("def{}{n}", [" ", "  ", ", ", "é中", "\u{301}/", "=="][n % 6])).collect();
    let repeated = |text: &str, bytes: usize| text.repeat(bytes / text.len());
    let mut state = 1u32;
    let mut letters = String::new();
    while letters.len() < 150_000 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        letters.push(char::from(b"abdeflmprt"[(state >> 24) as usize % 10]));
    }
    let long = [repeated("a", 100_000), letters, repeated("alphadef", 80_000), repeated("中", 90_000)];
    format!("{} {} {}", words.concat(), long.join(" "), words.concat())
}

#[test]
fn one_long_line_has_the_tokens_of_the_whole() {
    let [ours, theirs] = both(&[], &odd_line());
    assert!(ours == theirs);
}

#[test]
fn what_follows_a_window_may_change_its_last_tokens() {
    // The later two letters stand in the alphabet the sooner they are merged, so that one letter
    // more changes the tokens of many before.
    let letters: Vec<String> = ('a'..='s').map(String::from).collect();
    let mut model: serde_json::Value = serde_json::from_str(&tokenizer().to_json().unwrap()).unwrap();
    let model = model["model"].as_object_mut().unwrap();
    let vocab = model["vocab"].as_object_mut().unwrap();
    vocab.retain(|token, id| id.as_u64() < Some(256) || token == END_OF_TEXT);
    let pairs = letters.windows(2).rev();
    for (pair, id) in pairs.clone().zip(256..) {
        vocab.insert(pair.concat(), id.into());
    }
    model["merges"] = pairs.collect();
    let text = letters.concat().repeat(8000);
    let [ours, theirs] = both(&[("model", json!(model))], &text);
    assert!(ours == theirs);
}

#[test]
fn other_pre_tokenizers_and_normalizers_give_the_crates_tokens() {
    let bytes = |prefix: bool, regex: bool| json!({"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": true, "use_regex": regex});
    let split = |pattern: &str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
    let sequence = |parts: [serde_json::Value; 2]| json!({"type": "Sequence", "pretokenizers": parts});
    let llama = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    let digits = json!({"type": "Digits", "individual_digits": true});
    let text: String = (0..9000).map(|n| format!("def {n}{}", [" ", "  ", ", é", "\n\n", "I'll"][n % 5])).collect();
    let cases = [
        vec![("pre_tokenizer", bytes(false, true))],
        vec![("pre_tokenizer", bytes(true, true))],
        vec![("pre_tokenizer", sequence([split(llama), bytes(false, false)]))],
        vec![("pre_tokenizer", sequence([digits, bytes(false, true)]))],
        vec![("normalizer", json!({"type": "NFC"}))],
        vec![("normalizer", json!({"type": "Prepend", "prepend": "x"}))],
        vec![("pre_tokenizer", sequence([split(r"\S+\s*"), bytes(false, false)]))],
    ];
    for parts in cases {
        let [ours, theirs] = both(&parts, &text);
        assert!(ours == theirs, "{parts:?}");
    }
}

#[test]
fn training_on_one_long_word_takes_no_longer_than_on_many() {
    let start = std::time::Instant::now();
    let letters = ["a".repeat(1 << 20)];
    // Every merge doubles the longest token, up to the longest that is made: longer ones would need
    // longer windows than texts are read in.
    let doubled = Tokenizer::train(letters.clone().into_iter(), 270, &Observer::default()).unwrap();
    assert_eq!(doubled.single_token(&"a".repeat(1 << 13)), Some(268));
    assert_eq!(doubled.encode(&letters[0]).unwrap(), [268; 128]);
    assert!(Tokenizer::train(letters.into_iter(), 271, &Observer::default()).is_err());
    assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
}

#[test]
fn training_can_be_watched_and_stopped() {
    let seen = std::sync::Mutex::new(Vec::new());
    let report = |stage: &gossamer::observer::Stage<'_>| seen.lock().unwrap().push((stage.done, stage.total));
    let stop = std::sync::atomic::AtomicBool::new(false);
    let observer = Observer::stopped_by(&stop).with_report(&report);
    Tokenizer::train(documents(100).into_iter(), VOCAB, &observer).unwrap();
    assert_eq!(seen.lock().unwrap().last(), Some(&(VOCAB as u64 - 1, Some(VOCAB as u64 - 1))));
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(matches!(Tokenizer::train(documents(100).into_iter(), VOCAB, &observer), Err(Error::Stopped)));
}

#[test]
fn special_tokens_are_text_unless_asked_for() {
    let text = format!("a{END_OF_TEXT}b");
    let end = tokenizer().end_of_text().unwrap();
    assert!(!tokenizer().encode(&text).unwrap().contains(&end));
    let special = tokenizer().encode_special(&text).unwrap();
    assert_eq!(special, [tokenizer().encode("a").unwrap(), vec![end], tokenizer().encode("b").unwrap()].concat());
}

#[test]
fn tokens_have_one_notation() {
    let id = |text| tokenizer().single_token(text).unwrap();
    assert_eq!(tokenizer().show(id(" return")), "` return`");
    assert_eq!(tokenizer().show(id("\n")), r"`\n`");
    assert_eq!(tokenizer().show(tokenizer().encode("ü").unwrap()[0]), "`<0xC3>`");
    assert_eq!(tokenizer().show(VOCAB as u32), "`<300>`");
    assert_eq!((tokenizer().token_text(id("\n")), tokenizer().token_text(512)), ("\n".into(), "<512>".into()));
}

#[test]
fn a_tokenizer_file_may_begin_with_a_byte_order_mark() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("tokenizer.json");
    fs::write(&path, format!("\u{feff}{}", tokenizer().to_json().unwrap())).unwrap();
    assert_eq!(Tokenizer::load(&path).unwrap().hash(), tokenizer().hash());
    fs::write(&path, b"\xff\xfe{\0").unwrap();
    assert!(Tokenizer::load(&path).unwrap_err().to_string().contains("UTF-16"));
}

#[test]
fn tokens_can_be_shown() {
    let tokenizer = tokenizer();
    let shown = |text| tokenizer.token_str(tokenizer.single_token(text).unwrap()).unwrap();
    assert_eq!(shown("\n"), "\\n");
    assert_eq!(shown(" return"), " return");
    let halves: Vec<String> =
        tokenizer.encode("ü").unwrap().iter().map(|&id| tokenizer.token_str(id).unwrap()).collect();
    assert_eq!(halves, ["<0xC3>", "<0xBC>"]);
    assert!(tokenizer.decode(&[5, 300]).unwrap_err().to_string().contains("300"));
}

#[test]
fn tokenizers_are_saved_whole_and_damage_is_named() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("tokenizer.json");
    tokenizer().save(&path).unwrap();
    tokenizer().save(&path).unwrap();
    assert_eq!(names(folder.path()), ["tokenizer.json"]);
    let loaded = Tokenizer::load(&path).unwrap();
    assert_eq!(loaded.to_json().unwrap(), fs::read_to_string(&path).unwrap());
    assert_eq!(loaded.hash(), tokenizer().hash());
    assert_eq!(loaded.encode("def alpha").unwrap(), tokenizer().encode("def alpha").unwrap());

    let json = tokenizer().to_json().unwrap();
    let merges = json.find("\"merges\"").unwrap();
    let damaged = [
        json[..json.len() / 2].to_string(),
        "{}".into(),
        json.replace("\"BPE\"", "\"WordLevel\""),
        json[..merges].to_string() + "\"merges\": [[\"aaaaaaaaaaaaaaaaaaaaaaaaa\", \"b\"]]}}",
        json[..merges].to_string() + "\"merges\": [[\"return\", \"return\"]]}}",
        json.replace("\"!\": 0,", "\"!\": 1,"),
        json.replace("\"!\": 0,", "\"!\": 4000000000,"),
        json.replace("\"!\": 0,", "\"!\": null,"),
        json.replace("(?!", "(("),
        json.replace("\"dropout\": null", "\"dropout\": 0.5"),
    ];
    for (case, text) in damaged.iter().enumerate() {
        fs::write(&path, text).unwrap();
        let error = Tokenizer::load(&path).unwrap_err();
        assert!(matches!(&error, Error::File { path: at, .. } if *at == path), "case {case}: {error}");
    }
    fs::write(&path, b"\xff\xfe").unwrap();
    assert!(matches!(Tokenizer::load(&path), Err(Error::File { .. })));
    assert!(matches!(Tokenizer::load(folder.path().join("none")), Err(Error::Io { .. })));
    assert!(matches!(Tokenizer::from_json("{"), Err(Error::Tokenizer(_))));
    assert!(matches!(tokenizer().save(folder.path().join("none/tokenizer.json")), Err(Error::Io { .. })));
}

#[test]
fn loaded_tokenizers_never_truncate_or_pad() {
    let mut json: serde_json::Value = serde_json::from_str(&tokenizer().to_json().unwrap()).unwrap();
    json["truncation"] =
        serde_json::json!({"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0});
    json["padding"] = serde_json::json!({"strategy": {"Fixed": 50}, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "!"});
    let loaded = Tokenizer::from_json(&json.to_string()).unwrap();
    let text = "def alpha_0(x): return 12";
    assert_eq!(loaded.encode(text).unwrap(), tokenizer().encode(text).unwrap());
    assert_eq!(loaded.hash(), tokenizer().hash());
}

#[test]
fn invisible_characters_are_escaped() {
    assert_eq!(token(" a"), "` a`");
    assert_eq!(token("\n\t\r\0"), r"`\n\t\r\u{0}`");
    assert_eq!(token("\u{a0}\u{200b}\u{feff}\u{2028}"), r"`\u{a0}\u{200b}\u{feff}\u{2028}`");
    assert_eq!(token("é中"), "`é中`");
    assert_eq!(lossless(b"a\xc3b\xff"), "a<0xC3>b<0xFF>");
    assert_eq!(unknown(512), "<512>");
}

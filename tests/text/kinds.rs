//! Tokenizers of other kinds than byte-level BPE. The files of `tests/data/tokenizers` were made by
//! the Python package `tokenizers`, with the ids and the decoded text of each `text`.

use std::path::{Path, PathBuf};

use gossamer::text::tokenizer::Tokenizer;
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{VOCAB, tokenizer, write};

const KINDS: [&str; 3] = ["wordpiece", "unigram", "byte_fallback"];

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tokenizers").join(name)
}

fn load(kind: &str) -> Tokenizer {
    Tokenizer::load(data(&format!("{kind}.json"))).unwrap()
}

/// The crate's own tokenizer, which encodes a text in one go.
fn reference(kind: &str) -> tokenizers::Tokenizer {
    let mut reference = tokenizers::Tokenizer::from_file(data(&format!("{kind}.json"))).unwrap();
    reference.set_encode_special_tokens(true);
    reference
}

#[test]
fn ids_and_texts_are_those_of_the_python_package() {
    for kind in KINDS {
        let tokenizer = load(kind);
        let rows: Value = serde_json::from_slice(&std::fs::read(data(&format!("{kind}.ids.json"))).unwrap()).unwrap();
        for row in rows.as_array().unwrap() {
            let ids = tokenizer.encode(row["text"].as_str().unwrap()).unwrap();
            assert_eq!(json!(ids), row["ids"], "{kind}: {}", row["text"]);
            assert_eq!(json!(tokenizer.decode(&ids).unwrap()), row["decoded"], "{kind}");
        }
        assert!(!tokenizer.is_lossless());
    }
    assert!(tokenizer().is_lossless());
}

/// Cutting a long text must not show: words longer than WordPiece takes, runs of blanks, marks after
/// a blank, scripts without blanks.
#[test]
fn long_texts_have_the_tokens_of_the_whole() {
    let words = ["alpha ", "beta  ", "\u{301}x ", "中文", "a\tb ", "12 34", "É ", "\u{3000}q "];
    let mut text: String = (0..40_000).map(|n| words[(n * n / 7) % words.len()]).collect();
    text += &"y".repeat(70_000);
    text += &" end of it".repeat(10_000);
    for kind in KINDS {
        let ids = load(kind).encode(&text).unwrap();
        assert!(ids == reference(kind).encode(text.as_str(), false).unwrap().get_ids(), "{kind}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn any_text_has_the_tokens_of_the_crate(text in any::<String>(), more in "(\\PC|[ \\t\\n]|[a-z]{1,9}|<unk>|\\[EOS\\]){0,40}") {
        for kind in KINDS {
            for text in [&text, &more] {
                let theirs = reference(kind).encode(text.as_str(), false).unwrap();
                prop_assert_eq!(load(kind).encode(text).unwrap(), theirs.get_ids(), "{}", kind);
            }
        }
    }
}

#[test]
fn documents_end_with_the_token_that_files_name_or_a_known_one() {
    let end = |tokenizer: &Tokenizer| tokenizer.end_of_text().and_then(|id| tokenizer.token_str(id));
    assert_eq!(end(&load("wordpiece")).as_deref(), Some("[EOS]"));
    assert_eq!(end(&load("unigram")).as_deref(), Some("</s>"));
    assert_eq!(end(&load("byte_fallback")).as_deref(), Some("</s>"));
    let folder = TempDir::new().unwrap();
    let path = write(&folder, "tokenizer.json", std::fs::read(data("byte_fallback.json")).unwrap());
    for (settings, expected) in [
        (json!({ "eos_token": "<s>" }), "<s>"),
        (json!({ "eos_token": { "content": "<s>", "lstrip": false } }), "<s>"),
        (json!({ "eos_token": "none of them" }), "</s>"),
        (json!([]), "</s>"),
    ] {
        write(&folder, "tokenizer_config.json", settings.to_string());
        assert_eq!(end(&Tokenizer::load(&path).unwrap()).as_deref(), Some(expected), "{settings}");
    }
    // It is kept with the tokenizer, and tells corpora apart.
    write(&folder, "tokenizer_config.json", json!({ "eos_token": "<s>" }).to_string());
    let named = Tokenizer::load(&path).unwrap();
    assert_ne!(named.hash(), load("byte_fallback").hash());
    std::fs::create_dir(folder.path().join("run")).unwrap();
    let copy = folder.path().join("run/tokenizer.json");
    named.save(&copy).unwrap();
    let copy = Tokenizer::load(copy).unwrap();
    assert_eq!((end(&copy).as_deref(), copy.hash()), (Some("<s>"), named.hash()));
}

#[test]
fn a_vocabulary_and_its_merges_are_a_tokenizer() {
    let whole: Value = serde_json::from_str(&tokenizer().to_json().unwrap()).unwrap();
    let mut vocab = whole["model"]["vocab"].clone();
    vocab["<|endoftext|>"] = json!(VOCAB - 1);
    let pair = |merge: &Value| format!("{} {}", merge[0].as_str().unwrap(), merge[1].as_str().unwrap());
    let merges: Vec<String> = whole["model"]["merges"].as_array().unwrap().iter().map(pair).collect();
    let text = "def alpha_7(x):\n    return é + 12345";
    // The same model, whose words are cut as GPT-2 does it.
    let mut gpt2 = whole;
    gpt2["pre_tokenizer"] =
        json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true });
    let expected = Tokenizer::from_json(&gpt2.to_string()).unwrap().encode(text).unwrap();
    for (vocabulary, list) in [("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")] {
        let folder = TempDir::new().unwrap();
        write(&folder, vocabulary, vocab.to_string());
        write(&folder, list, format!("#version: 0.2\n{}\n", merges.join("\n")));
        for path in [folder.path().into(), folder.path().join(vocabulary), folder.path().join(list)] {
            let tokenizer = Tokenizer::load(path).unwrap();
            assert_eq!(tokenizer.encode(text).unwrap(), expected);
            assert_eq!(tokenizer.decode(&expected).unwrap(), text);
            assert_eq!((tokenizer.end_of_text(), tokenizer.vocab_size()), (Some(VOCAB as u32 - 1), VOCAB));
        }
    }
}

#[test]
fn what_is_no_tokenizer_is_refused() {
    let folder = TempDir::new().unwrap();
    let message = |path: &Path| Tokenizer::load(path).unwrap_err().to_string();
    assert!(message(folder.path()).contains("has no tokenizer (tokenizer.json, vocab.json with merges.txt"));
    write(&folder, "spiece.model", "x");
    let said = message(folder.path());
    assert!(said.contains("spiece.model is not") && said.contains("save_pretrained"), "{said}");
    write(&folder, "vocab.json", "{\"a\": 0}");
    let said = message(&folder.path().join("vocab.json"));
    assert!(said.contains("merges.txt"), "{said}");
    for (kind, change, why) in [
        ("wordpiece", json!({ "unk_token": "none" }), "lacks the token \"none\""),
        ("wordpiece", json!({ "max_input_chars_per_word": 1u64 << 40 }), "not a number up to"),
        ("unigram", json!({ "unk_id": 9999 }), "unk_id"),
        ("unigram", json!({ "vocab": [["a", 1e300]] }), "score"),
        ("unigram", json!({ "vocab": [["", 0.0]] }), "\"\""),
        ("unigram", json!({ "vocab": [] }), "0 tokens"),
        ("unigram", json!({ "type": "WordLevel" }), "only BPE, WordPiece and Unigram"),
    ] {
        let mut file: Value = serde_json::from_slice(&std::fs::read(data(&format!("{kind}.json"))).unwrap()).unwrap();
        for (key, value) in change.as_object().unwrap() {
            file["model"][key] = value.clone();
        }
        let said = Tokenizer::from_json(&file.to_string()).unwrap_err().to_string();
        assert!(said.contains(why), "{change}: {said}");
    }
}

#[test]
fn tokens_are_shown_as_they_are_in_a_text() {
    let text = |kind: &str, token: &str| {
        let tokenizer = load(kind);
        let id =
            (0..tokenizer.vocab_size() as u32).find(|&id| reference(kind).id_to_token(id).as_deref() == Some(token));
        String::from_utf8(tokenizer.token_bytes(id.unwrap()).unwrap()).unwrap()
    };
    assert_eq!((text("wordpiece", "##e").as_str(), text("wordpiece", "the").as_str()), ("e", " the"));
    assert_eq!(text("wordpiece", "[EOS]"), "[EOS]");
    assert_eq!(text("unigram", "\u{2581}"), " ");
    assert_eq!(text("byte_fallback", "<0x0A>"), "\n");
}

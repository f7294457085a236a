use std::collections::HashMap;

use gossamer::Error;
use gossamer::observer::Observer;
use gossamer::text::bigram::Bigram;
use gossamer::text::cache::Tokens;
use gossamer::text::corpus::Corpus;
use tempfile::TempDir;

use super::{VOCAB, documents, tokenizer};

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-12
}

#[test]
fn a_bigram_worked_out_by_hand() {
    // 0→1 twice, 1→0 twice, 0→2 once: n1 = 1, n2 = 2, D = 1/5; each token has one predecessor, so q = (1+1)/(3+3) = 1/3.
    let tokens = Tokens::from_ids(&[0, 1, 0, 1, 0, 2]);
    let bigram = Bigram::fit(&tokens, 3).unwrap();
    assert!(close(bigram.discount(), 0.2));
    let rest = 0.2 * 2.0 / 3.0 / 3.0;
    assert!(close(bigram.probability(0, 1), 1.8 / 3.0 + rest));
    assert!(close(bigram.probability(0, 2), 0.8 / 3.0 + rest));
    assert!(close(bigram.probability(0, 0), rest));
    assert!(close(bigram.probability(1, 0), 0.9 + 0.2 / 2.0 / 3.0));
    assert!(close(bigram.probability(2, 1), 1.0 / 3.0));
    let (p10, p01, p20) = (bigram.probability(1, 0).ln(), bigram.probability(0, 1).ln(), bigram.probability(0, 2).ln());
    // Windows 0 1 0 | 1 0 2, then 0 1 0 1 | 0 2.
    assert!(close(bigram.loss(&tokens, 3).unwrap(), -(p01 + p10 + p10 + p20) / 4.0));
    assert!(close(bigram.loss(&tokens, 4).unwrap(), -(p01 + p10 + p01 + p20) / 4.0));
}

#[test]
fn bigram_probabilities_follow_the_formula_and_sum_to_one() {
    let mut state = 1u32;
    let ids: Vec<u32> = (0..400)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 16) % 100 * ((state >> 24) % 100)) / 1000
        })
        .collect();
    let mut counts: HashMap<(u32, u32), f64> = HashMap::new();
    for pair in ids.windows(2) {
        *counts.entry((pair[0], pair[1])).or_default() += 1.0;
    }
    let n = |times: f64| counts.values().filter(|&&count| count == times).count() as f64;
    let discount = n(1.0) / (n(1.0) + 2.0 * n(2.0));
    let tokens = Tokens::from_ids(&ids);
    // The second is beyond the dense table.
    for vocab in [12u32, 5000] {
        let bigram = Bigram::fit(&tokens, vocab as usize).unwrap();
        for a in 0..12 {
            let row: f64 = (0..vocab).map(|b| bigram.probability(a, b)).sum();
            assert!((row - 1.0).abs() < 1e-10, "{row}");
            let follow: Vec<f64> =
                counts.iter().filter(|((first, _), _)| *first == a).map(|(_, count)| *count).collect();
            for b in 0..12 {
                let before = counts.keys().filter(|(_, second)| *second == b).count() as f64;
                let q = (before + 1.0) / (counts.len() as f64 + f64::from(vocab));
                let (total, count) = (follow.iter().sum::<f64>(), counts.get(&(a, b)).copied().unwrap_or(0.0));
                let p = if total == 0.0 {
                    q
                } else {
                    ((count - discount).max(0.0) + discount * follow.len() as f64 * q) / total
                };
                assert!(close(bigram.probability(a, b), p), "{a} {b}");
            }
        }
        assert_eq!(bigram.probability(0, vocab), 0.0);
    }
}

#[test]
fn a_bigram_beats_guessing_on_text_it_has_not_seen() {
    let cache = TempDir::new().unwrap();
    let corpus =
        Corpus::from_documents(documents(400), tokenizer(), cache.path(), 0.2, "bigram", &Observer::default()).unwrap();
    let bigram = Bigram::fit(&corpus.train, VOCAB).unwrap();
    let loss = bigram.loss(&corpus.validation, 32).unwrap();
    assert!(loss > 0.3 && loss < 0.5 * (VOCAB as f64).ln(), "{loss}");
}

#[test]
fn bigrams_refuse_what_does_not_fit() {
    let tokens = Tokens::from_ids(&[0, 1, 5]);
    assert!(matches!(Bigram::fit(&tokens, 5), Err(Error::Data(_))));
    let bigram = Bigram::fit(&Tokens::from_ids(&[0, 1]), 2).unwrap();
    assert!(bigram.loss(&tokens, 2).is_err());
    assert!(bigram.loss(&Tokens::from_ids(&[0]), 8).is_err());
    assert!(bigram.loss(&Tokens::from_ids(&[0, 1]), 1).is_err());
    // Never a probability of zero, so never an infinite loss: nothing seen, only pairs seen twice, only pairs seen once.
    for ids in [&[][..], &[0, 1, 0, 1, 0], &[0, 1]] {
        let bigram = Bigram::fit(&Tokens::from_ids(ids), 2).unwrap();
        assert!(bigram.loss(&Tokens::from_ids(&[1, 1, 0, 0]), 4).unwrap().is_finite());
    }
}

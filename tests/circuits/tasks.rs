//! The built-in tasks, under tokenizers of three sizes, and tasks from files.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use gossamer::Error;
use gossamer::circuits::tasks::{
    self, ContextLength, Pair, PairProblem, PromptClass, Split, Task, batch, choose_variant, tokenize,
};
use gossamer::observer::Observer;
use gossamer::text::python;
use gossamer::text::tokenizer::Tokenizer;

const SIZES: [usize; 3] = [300, 512, 2048];

/// Trained on the built-in corpus, as the presets' are.
static TOKENIZERS: LazyLock<Vec<Tokenizer>> = LazyLock::new(|| {
    let documents: Vec<String> = python::documents(0).take(1200).collect();
    SIZES.map(|size| Tokenizer::train(documents.iter().cloned(), size, &Observer::default()).unwrap()).to_vec()
});

fn quickstart() -> &'static Tokenizer {
    &TOKENIZERS[1]
}

/// What the answers of some tasks must be with each of [`SIZES`]; empty: that tokenizer cannot
/// write them. Names change from pair to pair. A task without a row is held to everything else.
const ANSWERS: &[(&str, [(&str, &str); 3])] = &[
    ("single_double_quote", [("'", "\""), ("')\n", "\")\n"), ("')\n", "\")\n")]),
    ("final_kwarg", [("=", "):\n"), ("=None", "):\n"), ("=None", "):\n")]),
    ("set_or_string", [(".", " "), (".add", " +="), (".add", " +=")]),
    ("set_or_string_fixedvarname", [(".", " "), (".add", " +="), (".add", " +=")]),
    ("class_init", [("NAME", "NAME"), (" NAME", " NAME"), (" NAME", " NAME")]),
    ("with_as", [(")", ")\n"), ("Q", "Q)\n"), ("Q)", "Q)\n")]),
    ("bracket_brace", [(":", ","), ("Q:", "Q,"), ("Q:", "Q,")]),
    ("with_open", [("r", "w"), ("r", "w"), ("r", "w")]),
    ("bracket_counting", [("]", "\n"), ("]", "]\n"), ("]]\n", "]\n")]),
    ("for_while", [(" ", ":\n"), (" in", ":\n"), (" in", ":\n")]),
    ("else_elif", [(":\n", " "), (":\n", " n"), (":\n", " not")]),
    ("fstring_brace", [(" ", "Q"), (" {", "Q)\n"), (" {", "Q)\n")]),
    ("if_ternary", [(":\n", " "), (":\n", " else"), (":\n", " else")]),
    ("var_swap", [("NAME", "NAME"), (" NAME", " NAME"), (" NAME", " NAME")]),
    ("indent_for", [("       ", "   "), ("       ", "   "), ("       ", "   ")]),
    ("lambda_func", [(":", "("), (":", "("), (":", "(")]),
    ("if_equals", [("", ""), (" ==", " ="), (" ==", " =")]),
    ("enumerate_range", [("en", "r"), (" ", " r"), (" enumerate", " range")]),
    ("var_if", [(":\n", "\n"), (":\n", "\n"), (":\n", "\n")]),
    ("while_return_true", [(":\n", "\n"), (":\n", "\n"), (":\n", "\n")]),
];

/// An answer with what changes from pair to pair taken out.
fn general(task: &str, answer: &str) -> String {
    match task {
        "class_init" | "var_swap" => {
            let name = answer.trim_start();
            assert!(!name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase()), "{answer:?} is no name");
            answer.replace(name, "NAME")
        }
        "bracket_brace" | "fstring_brace" | "with_as" => answer.replace(['\'', '"'], "Q"),
        _ => answer.to_string(),
    }
}

/// Prompt, answer and what follows: a whole piece of code for each side.
fn code(pair: &Pair) -> [String; 2] {
    [
        format!("{}{}{}", pair.clean, pair.target, pair.after[0]),
        format!("{}{}{}", pair.counterfactual, pair.alternative, pair.after[1]),
    ]
}

fn all() -> Vec<Task> {
    tasks::all().unwrap()
}

#[test]
fn the_idioms_of_the_corpus_are_tasks() {
    let names: Vec<&str> = tasks::names().collect();
    assert!(python::IDIOMS.iter().all(|idiom| names.contains(idiom)) && names.is_sorted(), "{names:?}");
    let Err(Error::Config { message, .. }) = tasks::find("bracket_count") else { panic!("found") };
    assert!(message.contains("bracket_counting"), "{message}");
    assert!(tasks::find("x".repeat(1 << 16).as_str()).is_err());
}

/// Every task, three tokenizers, both splits: single-token answers where they really stand, equal
/// lengths where claimed. The smallest tokenizer may be unable to write a task's answers.
#[test]
fn pairs_are_well_formed_for_every_tokenizer() {
    let tasks = all();
    let known = |name: &str| tasks.iter().any(|task| task.name == name);
    assert!(ANSWERS.iter().all(|(name, _)| known(name)), "ANSWERS has a row for a task that does not exist");
    for task in &tasks {
        let name = task.name.as_str();
        let expected = ANSWERS.iter().find(|(listed, _)| *listed == name).map(|(_, expected)| expected);
        for (at, tokenizer) in TOKENIZERS.iter().enumerate() {
            let (size, expected) = (tokenizer.vocab_size(), expected.map(|expected| expected[at]));
            let task = match task.clone().for_tokenizer(tokenizer) {
                Ok(task) => task,
                Err(error) => {
                    assert_eq!(expected.unwrap_or_default(), ("", ""), "{name}, {size}");
                    assert!(at == 0, "a tokenizer of {size} tokens: {error}");
                    continue;
                }
            };
            for split in [Split::Train, Split::Test] {
                let batch = batch(&task, split, 3, 0, 200, tokenizer, 1000).unwrap();
                assert_eq!((batch.pairs.len(), batch.tokens.len(), batch.cropped), (200, 200, 0));
                for (index, (pair, tokens)) in batch.pairs.iter().zip(&batch.tokens).enumerate() {
                    if let Some((target, alternative)) = expected {
                        let found = (general(name, &pair.target), general(name, &pair.alternative));
                        assert_eq!(found, (target.to_string(), alternative.to_string()), "{name}, {size}");
                    }
                    assert_ne!(tokens.target, tokens.alternative);
                    assert!(!task.same_length || tokens.clean.len() == tokens.counterfactual.len());
                    if index % 5 > 0 {
                        continue;
                    }
                    // The oracle: the whole code's tokens.
                    let prompts = [(&tokens.clean, tokens.target), (&tokens.counterfactual, tokens.alternative)];
                    for ((prompt, answer), code) in prompts.into_iter().zip(code(pair)) {
                        let whole = tokenizer.encode(&code).unwrap();
                        assert_eq!(&whole[..prompt.len()], prompt, "{name}, {size}: {code}");
                        assert_eq!(whole[prompt.len()], answer, "{name}, {size}: {code}");
                    }
                }
            }
        }
    }
}

#[test]
fn prompts_fit_the_quickstart_model_and_tell_the_sides_apart() {
    for task in all() {
        let batch = batch(&task, Split::Train, 0, 0, 200, quickstart(), 1000).unwrap();
        let short =
            batch.tokens.iter().filter(|tokens| tokens.clean.len().max(tokens.counterfactual.len()) < 60).count();
        assert!(short >= 170, "{}: only {short} of 200 are short", task.name);
        for pair in &batch.pairs {
            let (clean, counterfactual) = (&pair.clean, &pair.counterfactual);
            assert_ne!(clean, counterfactual);
            // What differs is one stretch of a line; names and file stems apart, a short one.
            let same = clean.bytes().zip(counterfactual.bytes()).take_while(|(a, b)| a == b).count();
            let back =
                clean[same..].bytes().rev().zip(counterfactual[same..].bytes().rev()).take_while(|(a, b)| a == b);
            let back = back.count();
            let region = [&clean[same..clean.len() - back], &counterfactual[same..counterfactual.len() - back]];
            let longest = match task.name.as_str() {
                "lambda_func" | "if_ternary" => 60,
                "with_as" => 20,
                _ => 14,
            };
            let closing = ["single_double_quote", "set_or_string", "set_or_string_fixedvarname"];
            assert!(region.iter().all(|part| part.len() <= longest), "{}: {region:?}\n{clean}", task.name);
            assert!(region.iter().all(|part| part.lines().count() <= 1), "{}: {region:?}", task.name);
            assert!(!closing.contains(&task.name.as_str()) || region[0].len() <= 5, "{}: {region:?}", task.name);
        }
    }
}

#[test]
fn test_pairs_are_not_trained_on() {
    for task in all() {
        let [train, test] = [Split::Train, Split::Test].map(|split| task.templates(split));
        assert!(train.len() >= 4 && test.len() >= 2, "{}", task.name);
        assert!(test.iter().all(|template| !train.contains(template)), "{}", task.name);
        let pairs = |split| (0..300).map(move |index| (split, index));
        let prompts: HashSet<String> =
            pairs(Split::Train).map(|(split, index)| task.pair(split, 0, index).clean).collect();
        assert!(prompts.len() > 250, "{}: only {} prompts are different", task.name, prompts.len());
        let mut seen = HashSet::new();
        for (split, index) in pairs(Split::Test) {
            let pair = task.pair(split, 0, index);
            assert!(!prompts.contains(&pair.clean), "{}", task.name);
            seen.insert(pair.template);
            for text in code(&pair) {
                assert!(!text.contains(['«', '»', '▮']), "{text}");
                let f = task.name == "fstring_brace" || task.name == "bracket_brace";
                assert!(f || !text.contains(['{', '}']), "an unknown placeholder: {text}");
            }
        }
        assert_eq!(seen.len(), test.len(), "{}: templates never used", task.name);
    }
}

/// Hashes of the pairs of some seeds, in all variants. Whoever changes a task's pairs must raise
/// its version, and change its row.
const FROZEN: &[(&str, u32, u64)] = &[
    ("single_double_quote", 6, 11486719571463643037),
    ("final_kwarg", 5, 2085143157365206393),
    ("set_or_string", 6, 8142116346448584911),
    ("set_or_string_fixedvarname", 6, 16855774334951116509),
    ("class_init", 5, 12820814553016773441),
    ("with_as", 6, 9345977899145052355),
    ("bracket_brace", 5, 6947331606795200101),
    ("with_open", 6, 9640125172994978448),
    ("bracket_counting", 5, 1380435965218206457),
    ("for_while", 6, 17242667734794804916),
    ("else_elif", 6, 8734318584680786763),
    ("fstring_brace", 6, 16555291954581117109),
    ("if_ternary", 5, 4072959720928487245),
    ("var_swap", 5, 7575309301600863867),
    ("indent_for", 5, 6448720404240727909),
    ("lambda_func", 5, 2560817930163243656),
    ("if_equals", 5, 9490218756180343975),
    ("enumerate_range", 6, 18282204967361103413),
    ("var_if", 6, 13173131158443854137),
    ("while_return_true", 5, 7111398584824514357),
];

fn pairs_hash(task: &Task) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for variant in 0..task.variants() {
        for (seed, index) in (0..60).flat_map(|index| [(0, index), (7, index), (u64::MAX, u64::MAX - index)]) {
            for split in [Split::Train, Split::Test] {
                let pair = task.pair_in(variant, split, seed, index);
                for text in code(&pair).iter().chain([&pair.target, &pair.alternative]) {
                    hash =
                        text.bytes().fold(hash, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
                }
            }
        }
    }
    hash
}

#[test]
fn pairs_are_frozen() {
    let tasks = all();
    let mut wrong = Vec::new();
    for task in &tasks {
        let Task { name, version, .. } = task;
        assert_eq!(task.pair(Split::Test, 7, u64::MAX), task.pair(Split::Test, 7, u64::MAX));
        assert_ne!(task.pair(Split::Train, 7, 1), task.pair(Split::Train, 8, 1), "{name}");
        let hash = pairs_hash(task);
        let row = format!("(\"{name}\", {version}, {hash}),");
        match FROZEN.iter().find(|(frozen, ..)| frozen == name) {
            None => wrong.push(format!("the new task {name} needs its row in FROZEN: {row}")),
            Some(frozen) if frozen.1 == *version && frozen.2 != hash => {
                wrong.push(format!(
                    "the pairs of {name} have changed: raise its version, and put its new row into FROZEN"
                ));
            }
            Some(frozen) if frozen.1 != *version => wrong.push(format!("FROZEN has another version of {name}: {row}")),
            Some(_) => {}
        }
    }
    for (frozen, ..) in FROZEN.iter().filter(|(frozen, ..)| tasks.iter().all(|task| task.name != *frozen)) {
        wrong.push(format!("{frozen} is in FROZEN, but is no task"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_long_context_comes_before_the_same_questions() {
    for task in all() {
        let long = task.clone().with_context(ContextLength::Long).unwrap();
        assert_ne!(long.hash, task.hash);
        assert_eq!(long.clone().with_context(ContextLength::Short).unwrap().hash, task.hash);
        let mut sizes = Vec::new();
        for index in 0..60 {
            let (pair, want) = (long.pair(Split::Test, 3, index), task.pair(Split::Test, 3, index));
            let program = pair.clean.strip_suffix(&want.clean).unwrap();
            assert_eq!(pair.counterfactual, format!("{program}{}", want.counterfactual), "{}", task.name);
            assert_eq!((&pair.target, &pair.after), (&want.target, &want.after));
            assert!(program.is_empty() || program.ends_with('\n'), "{program:?}");
            sizes.push(program.len());
        }
        sizes.sort_unstable();
        assert!(sizes[30] > 150 && (450..=602).contains(&sizes[59]), "{}: {sizes:?}", task.name);
    }
    // Other quotes and brackets than those asked for.
    let quotes = tasks::open("single_double_quote+long").unwrap();
    let both = (0..60)
        .map(|index| quotes.pair(Split::Train, 0, index).clean)
        .filter(|code| code.contains('\'') && code.contains('"') && code.contains('['));
    assert!(both.count() > 20);
}

#[test]
fn a_name_says_the_variant_and_the_context_of_a_question() {
    let wide = &TOKENIZERS[2];
    let chosen = tasks::open("bracket_counting").unwrap().for_tokenizer(wide).unwrap();
    assert_eq!((chosen.title.as_str(), chosen.question().as_str()), ("bracket_counting", "bracket_counting#2"));
    let named = tasks::open("bracket_counting#3+long").unwrap();
    assert_eq!(named.context, ContextLength::Long);
    let named = named.for_tokenizer(wide).unwrap();
    assert_eq!((named.name.as_str(), named.question().as_str()), ("bracket_counting", "bracket_counting#3+long"));
    assert_eq!(named.pair(Split::Train, 0, 0).target, "]");
    for (name, named) in
        [("var_if#0", "no 0"), ("var_if#3", "2 variants"), ("var_i#1", "var_if"), ("var_if+lon", "var_if")]
    {
        let error = tasks::open(name).unwrap_err().to_string();
        assert!(error.contains(named), "{name}: {error}");
    }
    let list = Task::from_pairs("mine", vec![chosen.pair(Split::Train, 0, 0)], vec![chosen.pair(Split::Test, 0, 0)]);
    assert!(list.unwrap().with_context(ContextLength::Long).is_err());
}

#[test]
fn problems_say_what_is_wrong() {
    let pair = |clean: &str, target: &str, alternative: &str, after: &str| Pair {
        clean: clean.into(),
        counterfactual: "y".into(),
        target: target.into(),
        alternative: alternative.into(),
        after: [after.into(), String::new()],
        template: 0,
    };
    let Err(PairProblem::NotSingle { side: PromptClass::Clean, pieces, .. }) =
        tokenize(&pair("x", "')\n\n", "\n", ""), quickstart())
    else {
        panic!("taken")
    };
    assert_eq!(pieces.concat(), "')\\n\\n");
    let problem = tokenize(&pair("print('hello", "'", "\n", ")\n"), quickstart()).unwrap_err();
    let PairProblem::Boundary { side: PromptClass::Clean, written, .. } = &problem else { panic!("{problem}") };
    assert_eq!(written, &["')\\n"]);
    assert!(tokenize(&pair("print('hello", "'", "\n", " +"), quickstart()).is_ok());
    let problem = tokenize(&pair("x", "\n", "\n", ""), quickstart()).unwrap_err();
    assert_eq!(problem, PairProblem::SameAnswer("\n".into()));
    let error = choose_variant(&tasks::find("if_equals").unwrap(), &TOKENIZERS[0]).unwrap_err().to_string();
    assert!(error.contains("if_equals") && error.contains("` ==` is not a single token but 2: ` =` `=`"), "{error}");
}

#[test]
fn prompts_are_cropped_from_the_left() {
    let task = tasks::find("single_double_quote").unwrap();
    let whole = batch(&task, Split::Train, 0, 0, 50, quickstart(), 1000).unwrap();
    let short = batch(&task, Split::Train, 0, 0, 50, quickstart(), 12).unwrap();
    assert!(short.cropped > 0 && short.cropped.is_multiple_of(2));
    for (tokens, pair) in short.tokens.iter().zip(&short.pairs) {
        assert!(tokens.clean.len() <= 12);
        let at = whole.pairs.iter().position(|other| other == pair);
        assert!(at.is_none_or(|at| whole.tokens[at].clean.ends_with(&tokens.clean)));
    }
    // Going on where a batch ended gives the pairs that a longer one has.
    let rest = batch(&task, Split::Train, 0, whole.next_index, 10, quickstart(), 1000).unwrap();
    let longer = batch(&task, Split::Train, 0, 0, 60, quickstart(), 1000).unwrap();
    assert_eq!(longer.pairs[50..], rest.pairs);
    // The last token never differs, so that nothing tells the prompts apart.
    let fixed = tasks::find("set_or_string_fixedvarname").unwrap();
    let error = batch(&fixed, Split::Train, 0, 0, 5, quickstart(), 1).unwrap_err().to_string();
    assert!(error.contains("cropping leaves no difference"), "{error}");
    assert!(batch(&task, Split::Train, 0, 0, 5, quickstart(), 0).is_err());
}

#[test]
fn a_saved_task_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.jsonl");
    let task = tasks::find("for_while").unwrap();
    let variant = choose_variant(&task, quickstart()).unwrap();
    task.save(&path, variant, 5, 40).unwrap();
    let read = Task::from_file(&path).unwrap();
    assert_eq!((read.name.as_str(), read.len(Split::Train), read.len(Split::Test)), ("mine", Some(40), Some(40)));
    for split in [Split::Train, Split::Test] {
        let texts = |pairs: Vec<Pair>| pairs.iter().map(code).collect::<HashSet<_>>();
        let read = texts((0..40).map(|index| read.pair(split, 1, index)).collect());
        assert_eq!(read, texts((0..40).map(|index| task.pair_in(variant, split, 5, index)).collect()));
    }
    let batch_of = |count| batch(&read, Split::Train, 1, 100, count, quickstart(), 96);
    assert_eq!(batch_of(40).unwrap().notes(), None);
    assert_eq!(batch_of(40).unwrap().tokens.len(), 40);
}

#[test]
fn a_file_with_few_pairs_gives_all_it_has_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.jsonl");
    let task = tasks::find("for_while").unwrap();
    task.save(&path, choose_variant(&task, quickstart()).unwrap(), 5, 20).unwrap();
    let read = Task::from_file(&path).unwrap();
    for (split, name) in [(Split::Train, "train"), (Split::Test, "test")] {
        let batch = batch(&read, split, 1, 7, 128, quickstart(), 1000).unwrap();
        assert_eq!((batch.tokens.len(), batch.requested, batch.next_index), (20, 128, 27));
        let notes = batch.notes().unwrap();
        assert!(notes.contains(&format!("all 20 {name} pairs instead of 128: there are no more")), "{notes}");
    }
}

#[test]
fn pairs_that_cannot_be_used_are_counted_where_there_are_few() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.jsonl");
    let lines: Vec<String> = (0..10).map(|n| line(&format!("x{n}"), if n < 4 { "a" } else { "a()b()" })).collect();
    fs::write(&path, lines.join("\n")).unwrap();
    let read = Task::from_file(&path).unwrap();
    let some = batch(&read, Split::Train, 0, 0, 128, quickstart(), 64).unwrap();
    let notes = some.notes().unwrap();
    assert!(notes.contains("all 4 train pairs instead of 128: 4 times an answer is not a single token"), "{notes}");
    // Of none there is nothing to use.
    let error = batch(&read, Split::Test, 0, 0, 128, quickstart(), 64).unwrap_err().to_string();
    assert!(error.contains("only 0 of the 128 test pairs"), "{error}");
}

#[test]
fn cropped_prompts_are_counted_in_the_notes() {
    let task = tasks::find("single_double_quote").unwrap();
    let short = batch(&task, Split::Train, 0, 0, 50, quickstart(), 12).unwrap();
    let note = format!("{} of 100 train prompts are cropped to their last 12 tokens", short.cropped);
    assert_eq!(short.notes().as_deref(), Some(note.as_str()));
}

#[test]
fn a_task_file_may_begin_with_a_byte_order_mark() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.jsonl");
    let lines: Vec<String> = (0..10).map(|n| line(&format!("x{n}"), "a")).collect();
    fs::write(&path, format!("\u{feff}{}", lines.join("\n"))).unwrap();
    assert_eq!(Task::from_file(&path).unwrap().len(Split::Train), Some(8));
    fs::write(&path, b"\xff\xfe{\0").unwrap();
    assert!(Task::from_file(&path).unwrap_err().to_string().contains("UTF-16"));
}

fn line(clean: &str, target: &str) -> String {
    format!(r#"{{"positive": "{clean}", "negative": "y", "target": "{target}", "alternative": "b"}}"#)
}

#[test]
fn lines_without_a_split_are_dealt_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plain.jsonl");
    let lines: Vec<String> = (0..20).map(|n| line(&format!("x{n}"), "a")).collect();
    fs::write(&path, lines.join("\n")).unwrap();
    let task = Task::from_file(&path).unwrap();
    assert_eq!((task.len(Split::Train), task.len(Split::Test)), (Some(16), Some(4)));
    let tests: HashSet<usize> = (0..4).map(|index| task.pair(Split::Test, 9, index).template).collect();
    assert_eq!(tests, HashSet::from([5, 10, 15, 20]));
}

#[test]
fn bad_task_files_are_refused_with_their_line() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |name: &str, second: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, [line("x", "a").as_bytes(), b"\n", second, b"\n"].concat()).unwrap();
        complaint(&path)
    };
    for (name, second, what) in [
        ("json", "{\"positive\": ".to_string(), "not a pair"),
        ("field", r#"{"positive": "x", "negative": "y", "target": "a"}"#.to_string(), "alternative"),
        ("unknown", line("x", "a").replace('}', r#", "spilt": "test"}"#), "spilt"),
        ("split", line("x", "a").replace('}', r#", "split": "dev"}"#), "dev"),
        ("empty", line("x", ""), "`target` is empty"),
        ("equal", line("x", "b"), "both \"b\""),
        ("prompts", line("y", "a"), "same prompt"),
        ("huge", line(&"x".repeat(1 << 20), "a"), "longer than"),
    ] {
        let message = refused(name, second.as_bytes());
        assert!(message.contains(&format!("{name}: line 2: ")) && message.contains(what), "{message}");
    }
    let message = refused("bytes", b"\xff\xfe");
    assert!(message.contains("line 2: not UTF-8"), "{message}");
    let message = refused("few", b"");
    assert!(message.contains("no pair is of the test split"), "{message}");
    assert!(matches!(Task::from_file(folder.path().join("none")), Err(Error::Io { .. })));
    assert!(Task::from_file(folder.path()).is_err());
}

/// A task's file like those in `tasks/`.
const TEMPLATES: &str = r#"version = 1
description = "close what was opened"
answers = [{ target = ")", alternative = "]" }]
train = ["{name} = «(|[»{num}▮«)|]»\n{next}"]
test = ["print(«(|[»{name}▮«)|]»)"]
[words]
name = ["left", "right"]
"#;

#[test]
fn a_file_of_templates_is_a_task() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.toml");
    fs::write(&path, TEMPLATES).unwrap();
    let task = tasks::open(path.to_str().unwrap()).unwrap();
    assert_eq!((task.name.as_str(), task.version, task.len(Split::Train)), ("mine", 1, None));
    let pair = task.pair(Split::Test, 0, 0);
    assert!(pair.clean.ends_with("print((left") || pair.clean.ends_with("print((right"), "{pair:?}");
    assert_eq!((pair.target.as_str(), pair.alternative.as_str(), pair.after), (")", "]", [")".into(), ")".into()]));
    let hash = |text: &str| {
        fs::write(&path, text).unwrap();
        Task::from_file(&path).unwrap().hash
    };
    assert_eq!(
        hash(&TEMPLATES.replace("close what", "close\twhat").replace('\n', "\r\n")),
        task.hash,
        "the same pairs"
    );
    assert_ne!(hash(&TEMPLATES.replace("left", "centre")), task.hash);
    assert_eq!(all().into_iter().map(|task| task.hash).collect::<HashSet<_>>().len(), all().len());
}

#[test]
fn bad_files_of_templates_are_refused_with_their_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.toml");
    for (old, new, line, what) in [
        ("description", "descriptoin", 2, "unknown field"),
        ("train", "test", 5, "duplicate key"),
        ("\"]\"", "\")\"", 3, "answers are equal"),
        ("{ target = \")\", alternative = \"]\" }", "", 1, "`answers` is empty"),
        ("▮«)|]»\\n", "«)|]»\\n", 4, "0 times"),
        ("«)|]»\\n", "«)]»\\n", 4, "«this|that»"),
        ("{num}", "{nmu}", 4, "{nmu}: no such words"),
        ("\"left\", \"right\"", "", 7, "at least one word"),
        ("print(«(|[»{name}▮«)|]»)", "{name} = «(|[»{num}▮«)|]»\\n{next}", 5, "also in `train`"),
        ("(«(|[»{name}▮«)|]»)", "(«(|[»{name}▮«]|)»)", 5, "clean code is `])`, but entry 1 of `answers` expects `)`"),
        ("(«(|[»{name}▮«)|]»)", "(«(|[»{name}▮))", 5, "counterfactual code is `))`, but entry 1"),
        (" }]\n", " }, { target = \"))\", alternative = \"]\" }]\n", 4, "entry 2 of `answers` expects `))`"),
    ] {
        assert!(TEMPLATES.contains(old), "{old}");
        fs::write(&path, TEMPLATES.replacen(old, new, 1)).unwrap();
        let message = complaint(&path);
        assert!(message.contains(&format!("mine.toml: line {line}: ")) && message.contains(what), "{message}");
    }
}

fn complaint(path: &Path) -> String {
    match Task::from_file(path) {
        Err(error @ Error::File { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

/// The part of `docs/tasks.md` below this line is written by the test; `UPDATE_DOCS=1` writes it
/// anew.
const MARK: &str = "<!-- written by tests/circuits/tasks.rs -->\n";

#[test]
fn the_documented_examples_are_current() {
    let mut written = String::new();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/tasks.md");
    let text = fs::read_to_string(&path).unwrap();
    let (head, tail) = text.split_once(MARK).unwrap();
    let update = std::env::var_os("UPDATE_DOCS").is_some();
    for task in all() {
        let templates = task.templates(Split::Train);
        let pair = (0..).map(|index| task.pair(Split::Train, 0, index)).filter(|pair| pair.template == 0);
        // The shortest of a few: the one with no lines around it.
        let pair = pair.take(20).min_by_key(|pair| pair.clean.len()).unwrap();
        let show = |prompt: &str, answer: &str| format!("{}⟨{}⟩", prompt, answer.replace('\n', "⏎"));
        written.push_str(&format!(
            "\n## {}\n\n{}. {} templates to train on, {} to test with.\n\n```text\n{}\n\n{}\n```\n",
            task.name,
            task.description,
            templates.len(),
            task.templates(Split::Test).len(),
            show(&pair.clean, &pair.target),
            show(&pair.counterfactual, &pair.alternative),
        ));
    }
    if update {
        fs::write(&path, format!("{head}{MARK}{written}")).unwrap();
    } else {
        assert_eq!(tail, written, "run this test with UPDATE_DOCS=1");
    }
}

#[test]
fn answers_are_given_by_all_that_begins_alike() {
    let tokenizer = &TOKENIZERS[2];
    let id = |text: &str| tokenizer.single_token(text).unwrap_or_else(|| panic!("{text:?} is not a token"));
    let given = |answers: [&str; 2]| tasks::tokens_sharing_prefix(tokenizer, answers.map(id));
    let by_decoding = |start: &str| -> Vec<u32> {
        let all = 0..tokenizer.vocab_size() as u32;
        all.filter(|&id| tokenizer.decode(&[id]).unwrap().starts_with(start)).collect()
    };
    let [single, double] = given(["')\n", "\")\n"]);
    assert_eq!((&single, &double), (&by_decoding("'"), &by_decoding("\"")));
    assert!(single.len() > 1 && single.contains(&id("')\n")) && single.contains(&id("'")));
    // They part after `)`; a third continuation gives neither.
    let [colon, line] = given(["):\n", ")\n"]);
    assert_eq!((&colon, &line), (&by_decoding("):"), &by_decoding(")\n")));
    // The one is where the other begins.
    let [short, long] = given([")", ")\n"]);
    assert_eq!((short, long), (vec![id(")")], by_decoding(")\n")));
}

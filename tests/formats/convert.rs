//! Conversion: nothing lost, the same bytes every time, and nothing else touched.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use gossamer::device::Device;
use gossamer::files::{FloatType, HostTensor, SafetensorsFile, TensorSource, load_metadata};
use gossamer::formats::torch::TorchStateDict;
use gossamer::formats::{ConvertFormat, ConvertOptions, ModelFiles, convert};
use gossamer::model::Model;
use gossamer::observer::Observer;
use gossamer::text::tokenizer::Tokenizer;
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::{assert_says, bits, bits_of, config, weights, write, write_config, write_model};

fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.file_name().unwrap().to_str().unwrap().to_string(), fs::read(path).unwrap())).collect()
}

fn run(from: &Path, to: &Path, float: Option<FloatType>) -> gossamer::Result<ModelFiles> {
    convert(&ModelFiles::open(from)?, to, ConvertOptions { float, ..ConvertOptions::default() })?;
    ModelFiles::open(to)
}

fn object(bytes: &[u8]) -> serde_json::Map<String, Value> {
    serde_json::from_slice(bytes).unwrap()
}

#[test]
fn a_model_that_a_kill_left_aside_is_not_taken_for_nothing() {
    let (from, to) = (tempdir().unwrap(), tempdir().unwrap());
    write_model(from.path());
    // A kill between the two renames of a replacement leaves this; a file of another program has a
    // name of its own.
    let (aside, out) = (to.path().join(".old-gossamer-out"), to.path().join("out"));
    fs::create_dir(&aside).unwrap();
    fs::write(aside.join("model.safetensors"), "the only copy").unwrap();
    fs::write(to.path().join(".old-out"), "notes").unwrap();
    assert_says(run(from.path(), &out, None), &["out", "is not empty"]);
    assert_eq!(fs::read_to_string(out.join("model.safetensors")).unwrap(), "the only copy");
    assert_eq!(fs::read_to_string(to.path().join(".old-out")).unwrap(), "notes");
}

#[test]
fn every_float_type_comes_back_bit_for_bit_and_twice_gives_the_same_bytes() {
    let types = [
        (FloatType::F32, "float32"),
        (FloatType::F16, "float16"),
        (FloatType::BF16, "bfloat16"),
        (FloatType::F64, "float32"),
    ];
    for (float, torch) in types {
        let dir = tempdir().unwrap();
        let (from, once, twice) = (dir.path().join("from"), dir.path().join("once"), dir.path().join("a/b/twice"));
        let mut tensors = write_model(&from);
        // Odd ones: exact in every type.
        tensors.get_mut("final_logits_bias").unwrap().data[..3].copy_from_slice(&[-0.0, f32::INFINITY, 65280.0]);
        write(&from.join("model.safetensors"), &tensors, float, "circuit_model.");
        let kept = if float == FloatType::F64 { FloatType::F32 } else { float };
        for (from, to) in [(&from, &once), (&once, &twice)] {
            let converted = run(from, to, None).unwrap();
            assert_eq!(bits(converted.weights.as_ref()), bits_of(&tensors));
            assert!(converted.weights.entries().values().all(|info| info.float == kept));
            assert_eq!(converted.config, config());
        }
        assert_eq!(contents(&once), contents(&twice));
        assert_eq!(object(&contents(&once)["config.json"])["torch_dtype"], torch);
        let names =
            ["beeg_config.json", "config.json", "final_model.pt", "generation_config.json", "model.safetensors"];
        assert!(contents(&once).keys().eq(names.iter()));
        let pickled = TorchStateDict::open(once.join("final_model.pt")).unwrap();
        assert_eq!(bits(&pickled), bits_of(&tensors));
        assert!(pickled.entries().values().all(|info| info.float == kept));
        assert_eq!(load_metadata(once.join("model.safetensors")).unwrap()["format"], "pt");

        let half = run(&from, &dir.path().join("half"), Some(FloatType::BF16)).unwrap();
        assert!(half.weights.entries().values().all(|info| info.float == FloatType::BF16));
    }
}

#[test]
fn what_is_written_is_what_others_expect() {
    let dir = tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    let mut config = config();
    (config.sink, config.vocab_size, config.tied_unembed) = (false, 300, true);
    let mut tensors = weights(&config);
    tensors.insert("lm_head.weight".into(), tensors["transformer.wte.weight"].clone());
    fs::create_dir(&from).unwrap();
    write_config(&from.join("config.json"), &config, json!({ "transformers_version": "9", "n_mlp": 3 }));
    let docs = (0..200).map(|i| format!("x{i} = {}\nprint(x{i})\n", i * i));
    Tokenizer::train(docs, 300, &Observer::default()).unwrap().save(from.join("tokenizer.json")).unwrap();
    let mut with_mask = tensors.clone();
    let mask = HostTensor { shape: vec![1, 1, 2, 2], data: vec![1.0, 0.0, 1.0, 1.0] };
    with_mask.insert("transformer.h.0.attn.bias".into(), mask);
    write(&from.join("model.safetensors"), &with_mask, FloatType::F32, "");

    let converted = run(&from, &to, None).unwrap();
    assert_eq!(bits(converted.weights.as_ref()), bits_of(&tensors));
    assert_eq!(converted.tokenizer, Some(to.join("tokenizer.json")));
    let written = contents(&to);
    assert_eq!(written["tokenizer.json"], contents(&from)["tokenizer.json"]);

    // The published fields, as a published file has them, and no others.
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/forward/paper/beeg_config.json");
    let mut published = object(&fs::read(golden).unwrap());
    assert_eq!(published.remove("sink"), Some(json!(false)));
    let beeg = object(&written["beeg_config.json"]);
    assert_eq!(beeg.keys().collect::<Vec<_>>(), published.keys().collect::<Vec<_>>());
    assert_eq!((&beeg["vocab_size"], &beeg["d_mlp"], &beeg["rms_norm"]), (&json!(300), &json!(3), &json!(true)));

    let hugging_face = object(&written["config.json"]);
    let end = Tokenizer::load(to.join("tokenizer.json")).unwrap().end_of_text().unwrap();
    for (name, value) in [
        ("model_type", json!("circuitgpt")),
        ("architectures", json!(["CircuitGPTForCausalLM"])),
        ("torch_dtype", json!("float32")),
        ("tie_word_embeddings", json!(true)),
        ("bos_token_id", json!(end)),
        ("eos_token_id", json!(end)),
        ("n_layer", json!(2)),
    ] {
        assert_eq!(hugging_face[name], value, "{name}");
    }
    assert!(!hugging_face.contains_key("transformers_version") && !hugging_face.contains_key("n_mlp"));
    let class = |name: &str| hugging_face["auto_map"][name].as_str().unwrap().to_string();
    assert!(class("AutoConfig").starts_with("openai/circuit-sparsity--"));
    assert!(class("AutoModelForCausalLM").ends_with(".CircuitGPTForCausalLM"));
    let ends = json!({ "bos_token_id": end, "eos_token_id": end });
    assert_eq!(Value::Object(object(&written["generation_config.json"])), ends);
    let end = json!("<|endoftext|>");
    assert_eq!(object(&written["tokenizer_config.json"])["eos_token"], end);
    assert_eq!(object(&written["tokenizer_config.json"])["tokenizer_class"], "PreTrainedTokenizerFast");
    assert_eq!(object(&written["special_tokens_map.json"])["eos_token"], end);

    // The names of Hugging Face's modules; the embedding stands for the unembedding in PyTorch's file.
    let names = SafetensorsFile::open(to.join("model.safetensors")).unwrap();
    assert!(names.entries().keys().all(|name| name.starts_with("circuit_model.")));
    let pickled = TorchStateDict::open(to.join("final_model.pt")).unwrap();
    assert_eq!(bits(&pickled), bits_of(&tensors));
}

#[test]
fn a_tied_unembedding_is_in_the_published_file_though_files_leave_it_out() {
    let dir = tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    let mut config = config();
    config.tied_unembed = true;
    let mut tensors = weights(&config);
    tensors.remove("lm_head.weight");
    fs::create_dir(&from).unwrap();
    write_config(&from.join("config.json"), &config, json!({}));
    write(&from.join("model.safetensors"), &tensors, FloatType::F32, "");
    run(&from, &to, None).unwrap();
    let pickled = TorchStateDict::open(to.join("final_model.pt")).unwrap();
    let (unembedding, embedding) = ("lm_head.weight", "transformer.wte.weight");
    assert_eq!(pickled.read(unembedding).unwrap(), pickled.read(embedding).unwrap());
    assert_eq!(pickled.entries().len(), tensors.len() + 1);
}

#[test]
fn each_program_gets_its_files_and_no_others() {
    let dir = tempdir().unwrap();
    let from = dir.path().join("from");
    fs::create_dir(&from).unwrap();
    let mut config = config();
    (config.vocab_size, config.afrac_loctypes.0) = (300, "attn_in, mlp_out".into());
    config.afrac = Some(0.5);
    let mut tensors = weights(&config);
    tensors.get_mut("final_logits_bias").unwrap().data.fill(0.0);
    write_config(&from.join("config.json"), &config, json!({}));
    write(&from.join("model.safetensors"), &tensors, FloatType::F32, "");
    let docs = (0..200).map(|i| format!("x{i} = {}\nprint(x{i})\n", i * i));
    Tokenizer::train(docs, 300, &Observer::default()).unwrap().save(from.join("tokenizer.json")).unwrap();
    let files = ModelFiles::open(&from).unwrap();
    let written = |name: &str| {
        let out = dir.path().join(name);
        let to = ConvertFormat::named(name).unwrap();
        convert(&files, &out, ConvertOptions { to, ..ConvertOptions::default() }).unwrap();
        contents(&out)
    };
    let names = |written: &BTreeMap<String, Vec<u8>>| written.keys().cloned().collect::<Vec<_>>();

    let hugging_face = [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    assert_eq!(names(&written("hf")), hugging_face);
    let torch = written("torch");
    assert_eq!(names(&torch), ["beeg_config.json", "final_model.pt", "tokenizer.json"]);
    // The published code does not trim.
    assert_eq!(object(&torch["beeg_config.json"])["afrac_loctypes"], "attn_in,mlp_out");
    assert_eq!(ModelFiles::open(dir.path().join("torch")).unwrap().config.afrac, Some(0.5));

    let nested = written("sparse_pretrain");
    assert_eq!(names(&nested), ["config.json", "pytorch_model.bin", "tokenizer.json"]);
    let fields = object(&nested["config.json"]);
    assert_eq!(fields["model_config"]["use_attention_sinks"], true);
    assert_eq!(fields["sparsity_config"]["activation_topk_fraction"], 0.5);
    let dict = TorchStateDict::open(dir.path().join("sparse_pretrain/pytorch_model.bin")).unwrap();
    let blocks = |name: &str| dict.entries().contains_key(name);
    assert!(["wte.weight", "blocks.1.mlp.c_fc.bias", "blocks.0.attn.attn_fn.sink_logit"].into_iter().all(blocks));
    assert!(!blocks("final_logits_bias"));
    let name = "transformer.h.1.attn.c_attn.weight";
    assert_eq!(dict.read("blocks.1.attn.c_attn.weight").unwrap(), tensors[name]);
    assert_says(ConvertFormat::named("onnx").map(drop), &["onnx", "sparse_pretrain"]);
}

#[test]
fn what_a_program_cannot_express_is_refused_by_the_field() {
    let dir = tempdir().unwrap();
    let mut number = 0;
    let mut attempt = |to: ConvertFormat, change: fn(&mut gossamer::model::ModelConfig)| {
        number += 1;
        let (from, out) = (dir.path().join(format!("from{number}")), dir.path().join("out"));
        let mut config = config();
        change(&mut config);
        fs::create_dir(&from).unwrap();
        write_config(&from.join("config.json"), &config, json!({}));
        write(&from.join("model.safetensors"), &weights(&config), FloatType::F32, "");
        let files = ModelFiles::open(&from).unwrap();
        convert(&files, &out, ConvertOptions { to, ..ConvertOptions::default() })
    };
    let nested = ConvertFormat::SparsePretrain;
    assert_says(attempt(ConvertFormat::Torch, |c| c.n_head = 3), &["n_head", "3"]);
    assert_says(attempt(nested, |_| ()), &["final_logits_bias", "not zero"]);
    assert_says(attempt(nested, |c| c.d_pos_emb = Some(2)), &["d_pos_emb"]);
    assert_says(attempt(nested, |c| c.d_head = Some(3)), &["d_head", "6 channels"]);
    assert_says(
        attempt(nested, |c| {
            c.afrac = Some(0.5);
            c.afrac_loctypes.0 = "resid_post_mlp".into();
        }),
        &["afrac_loctypes", "resid_post_mlp"],
    );
    assert_says(attempt(nested, |c| c.afrac = Some(0.1)), &["afrac", "nothing"]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), number);
}

#[test]
fn our_own_checkpoints_and_the_golden_models_convert() {
    let dir = tempdir().unwrap();
    let step = dir.path().join("runs/x/checkpoints/step-3");
    fs::create_dir_all(&step).unwrap();
    let model = Model::new(config(), 5, &Device::cpu()).unwrap();
    model.save(&step).unwrap();
    let converted = run(&dir.path().join("runs/x"), &dir.path().join("out"), None).unwrap();
    assert_eq!(bits(converted.weights.as_ref()), bits_of(&model.parameters.to_host().unwrap()));
    assert_eq!(object(&contents(&dir.path().join("out"))["beeg_config.json"])["sink"], true);

    for case in ["paper", "sink_sparse", "dense_gpt2", "relu_cat_pos"] {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/forward").join(case);
        let before = ModelFiles::open(&golden).unwrap();
        let after = run(&golden, &dir.path().join(case), None).unwrap();
        assert_eq!(bits(after.weights.as_ref()), bits(before.weights.as_ref()), "{case}");
        assert_eq!(after.config, before.config);
    }
}

#[test]
fn nothing_but_a_model_is_ever_replaced_and_only_by_force() {
    let dir = tempdir().unwrap();
    let (from, out) = (dir.path().join("from"), dir.path().join("out"));
    write_model(&from);
    let files = ModelFiles::open(&from).unwrap();
    let (plain, force) = (ConvertOptions::default(), ConvertOptions { force: true, ..Default::default() });

    // An empty folder is free.
    fs::create_dir(&out).unwrap();
    convert(&files, &out, plain).unwrap();
    let whole = contents(&out);
    assert_says(convert(&files, &out, plain), &["out", "not empty"]);
    fs::write(out.join("notes"), "mine").unwrap();
    convert(&files, &out, force).unwrap();
    assert_eq!(contents(&out), whole);

    // Other people's things are not, whatever is asked.
    let precious = dir.path().join("precious");
    fs::create_dir(&precious).unwrap();
    fs::write(precious.join("thesis"), "years").unwrap();
    assert_says(convert(&files, &precious, force), &["precious", "not the folder of a model"]);
    fs::write(precious.join("config.json"), "{}").unwrap();
    fs::create_dir(precious.join("more")).unwrap();
    assert_says(convert(&files, &precious, force), &["precious", "not the folder of a model"]);
    assert_says(convert(&files, &precious.join("thesis"), force), &["thesis", "no folder"]);
    assert_says(convert(&files, &precious.join("thesis/out"), plain), &["thesis"]);
    for same in [from.clone(), from.join("../from"), from.join(".")] {
        assert_says(convert(&files, &same, force), &["from", "being converted"]);
    }
    assert_eq!(fs::read_to_string(precious.join("thesis")).unwrap(), "years");
    ModelFiles::open(&from).unwrap();
}

#[test]
fn a_conversion_that_fails_leaves_nothing() {
    let dir = tempdir().unwrap();
    let (from, out) = (dir.path().join("from"), dir.path().join("out"));
    let mut tensors = write_model(&from);
    let try_it = |float| run(&from, &out, float);
    assert_says(try_it(Some(FloatType::F64)), &["float", "F64"]);

    fs::write(from.join("tokenizer.json"), "{}").unwrap();
    assert_says(try_it(None), &["tokenizer.json"]);
    let docs = (0..200).map(|i| format!("x{i} = {}\nprint(x{i})\n", i * i));
    Tokenizer::train(docs, 300, &Observer::default()).unwrap().save(from.join("tokenizer.json")).unwrap();
    assert_says(try_it(None), &["tokenizer.json", "300 tokens", "only 6"]);
    fs::remove_file(from.join("tokenizer.json")).unwrap();

    tensors.get_mut("final_logits_bias").unwrap().data[0] = 1e6;
    write(&from.join("model.safetensors"), &tensors, FloatType::F32, "");
    assert_says(try_it(Some(FloatType::F16)), &["model.safetensors", "final_logits_bias`", "1e6", "F16"]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

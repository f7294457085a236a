//! Trains a tiny weight-sparse transformer on made-up Python and lets it write. `--quick`: fewer
//! steps.

use gossamer::device::Device;
use gossamer::model::{Batch, Model, ModelConfig, Sampling};
use gossamer::observer::Observer;
use gossamer::text::cache::Tokens;
use gossamer::text::python;
use gossamer::text::tokenizer::Tokenizer;
use gossamer::train::config::RunConfig;
use gossamer::train::data::batches;
use gossamer::train::run::nonzeros;
use gossamer::train::step::Trainer;

fn main() -> gossamer::Result<()> {
    // What to read: programs from the built-in generator, in tokens.
    let documents: Vec<String> = python::documents(0).take(600).collect();
    let tokenizer = Tokenizer::train(documents.iter().cloned(), 384, &Observer::default())?;
    let end = tokenizer.end_of_text();
    let tokens = tokenizer.encode_batch(&documents)?.into_iter().flat_map(|document| document.into_iter().chain(end));
    let tokens = Tokens::from_ids(&tokens.collect::<Vec<_>>());

    // What to train: the smallest preset, smaller still. One hidden weight in 32 will be left.
    let mut config = RunConfig::preset("quickstart")?;
    config.model = ModelConfig { vocab_size: 384, n_layer: 1, d_model: 64, n_head: 4, ..config.model };
    config.train.steps = if std::env::args().any(|a| a == "--quick") { 40 } else { 400 };
    (config.train.batch_size, config.train.lr) = (16, 1e-2);
    (config.sparsity.target_density, config.sparsity.embed_target_density) = (1.0 / 32.0, 1.0 / 8.0);
    config.validate()?;
    let device = Device::cpu();
    let model = Model::new(config.model.clone(), 0, &device)?;
    let mut trainer = Trainer::new(model, config.train.clone(), config.sparsity.clone())?;

    for step in 0..config.train.steps {
        let sequences = batches(&config, &tokens, step)?;
        let batch = Batch::new(&device, &config.model, &sequences[0], config.train.batch_size)?;
        let record = trainer.step(&[batch])?;
        if step == 0 || step + 1 == config.train.steps || (step + 1) % 100 == 0 {
            let numbers = trainer.numbers(&record)?;
            println!("step {:3}: loss {:.3}, density {:.3}", step + 1, numbers.loss, numbers.density);
        }
    }
    let (left, all) = nonzeros(&trainer.model)?;
    println!("{left} of {all} weights are not zero");

    let prompt = tokenizer.encode("def ")?;
    let sampling = Sampling { temperature: 0.7, max_new_tokens: 60, end_of_text: end, ..Sampling::default() };
    let text = tokenizer.decode(&[&prompt[..], &trainer.model.generate(&prompt, &sampling)?].concat())?;
    println!("it writes:\n{text}");
    Ok(())
}

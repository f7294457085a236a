//! Trains a tiny weight-sparse transformer on generated Python. `--quick`: fewer steps.

use gossamer::observer::Observer;
use gossamer::prelude::*;
use gossamer::text::{cache::Tokens, python};
use gossamer::train::{config::RunConfig, data, run, run::Trainable, step::Trainer};

fn main() -> gossamer::Result<()> {
    // 1. Data: generated programs and a tokenizer for them. A special token ends each program.
    let documents: Vec<String> = python::documents(0).take(600).collect();
    let tokenizer = Tokenizer::train(documents.iter().cloned(), 384, &Observer::default())?;
    let end = tokenizer.end_of_text();
    let ids = tokenizer.encode_batch(&documents)?.into_iter().flat_map(|document| document.into_iter().chain(end));
    let tokens = Tokens::from_ids(&ids.collect::<Vec<_>>());

    // 2. Settings: a preset, made smaller. At the end, 1 of 32 hidden weights is not zero.
    let mut config = RunConfig::preset("quickstart")?;
    config.model = ModelConfig { vocab_size: 384, n_layer: 1, d_model: 64, n_head: 4, ..config.model };
    config.train.steps = if std::env::args().any(|a| a == "--quick") { 40 } else { 400 };
    (config.train.batch_size, config.train.lr) = (16, 1e-2);
    (config.sparsity.target_density, config.sparsity.embed_target_density) = (1.0 / 32.0, 1.0 / 8.0);

    // 3. Training: every step keeps the largest weights of each matrix, fewer and fewer.
    let model = Model::new(config.model.clone(), 0, &Device::cpu())?;
    let mut trainer = Trainer::new(model, config.train.clone(), config.sparsity.clone())?;
    for step in 0..config.train.steps {
        let record = Trainable::step(&mut trainer, &data::batches(&config, &tokens, step)?, &Observer::default())?;
        if step == 0 || (step + 1) % 40 == 0 {
            let numbers = trainer.numbers(&record)?;
            println!("step {:3}: loss {:.3}, density {:.3}", step + 1, numbers.loss, numbers.density);
        }
    }
    let (nonzero, all) = run::nonzeros(&trainer.model)?;
    println!("{nonzero} of {all} weights are not zero");

    // 4. Generation: the trained model continues a prompt.
    let text = tokenizer.decode(&trainer.model.generate(&tokenizer.encode("def ")?, &Sampling::default())?)?;
    println!("it writes:\ndef {text}");
    Ok(())
}

//! A thousand training steps take no more memory than fifty. Alone in its process, whose size it
//! watches.

mod common;

use gossamer::device::Device;
use gossamer::model::{Batch, Model, ModelConfig};
use gossamer::sparsity::Schedule;
use gossamer::train::config::RunConfig;
use gossamer::train::step::Trainer;

/// Resident bytes of this process, where the system tells.
fn resident() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    // Pages of 4 KiB; where they are larger, growth is only underrated.
    Some(statm.split_whitespace().nth(1)?.parse::<u64>().ok()? * 4096)
}

fn thousand_steps(device: &Device) {
    let preset = RunConfig::preset("quickstart").unwrap();
    let config = ModelConfig {
        block_size: 4,
        vocab_size: 16,
        n_layer: 1,
        n_head: 2,
        d_model: 8,
        d_mlp: Some(16),
        d_head: None,
        ..preset.model
    };
    let mut optimizer = preset.train;
    (optimizer.steps, optimizer.batch_size) = (1000, 2);
    // The densities have fallen, and weights are compressed, before memory is first looked at.
    let schedule = Schedule { anneal_start_frac: 0.0, anneal_stop_frac: 0.02, min_alive: 1, ..preset.sparsity };
    let model = Model::new(config.clone(), 1, device).unwrap();
    let mut trainer = Trainer::new(model, optimizer, schedule).unwrap();
    let (mut allocated, mut size) = (0, None);
    let mut pending = Vec::new();
    for step in 1..=1000u32 {
        let tokens: Vec<u32> = (0..8).map(|i| (step * 7 + i * i) % 16).collect();
        pending.push(trainer.step(&[Batch::new(device, &config, &tokens, 2).unwrap()]).unwrap());
        if step % 10 == 0 {
            // As the training loop does: the device runs ahead, losses are read every few steps.
            for record in pending.drain(..) {
                trainer.numbers(&record).unwrap();
            }
        }
        match step {
            50 => allocated = device.allocated(),
            200 => size = resident(),
            _ => {}
        }
    }
    assert!(trainer.compressed().iter().flatten().count() > 0);
    assert!(allocated > 0);
    // Which products skip zeros depends on the activations, so that a buffer of theirs may be
    // wanted late. One that leaked would be 950.
    let more = device.allocated() - allocated;
    assert!(
        more <= allocated / 16,
        "{}: {more} of {allocated} bytes of device memory since step 50",
        device.describe()
    );
    if let (Some(before), Some(now)) = (size, resident()) {
        let grown = now.saturating_sub(before);
        println!("{}: {grown} bytes more since step 200", device.describe());
        assert!(grown < 4 << 20, "{}: {grown} bytes more since step 200", device.describe());
    }
}

#[test]
fn memory_is_flat_over_a_thousand_steps() {
    for device in common::devices() {
        thousand_steps(&device);
    }
}

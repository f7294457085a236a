//! Several ranks train as one process does. Threads stand for the processes; `tests/mpi.rs` has
//! real ones.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use gossamer::device::Device;
use gossamer::model::{Batch, Model};
use gossamer::observer::Observer;
use gossamer::train::bridge::BridgeConfig;
use gossamer::train::communicator::{Communicator, Transport};
use gossamer::train::config::{OptimizerConfig, RunConfig};
use gossamer::train::estimate::Estimate;
use gossamer::train::run::{Run, TrainResult};
use gossamer::train::step::Trainer;
use gossamer::{Error, Result};
use tempfile::tempdir;

use crate::common::devices;
use crate::tiny::{model, optimizer, schedule, sequences, trainer};

/// Where threads meet.
struct Room {
    barrier: Barrier,
    said: Mutex<Vec<Vec<u8>>>,
}

struct Thread {
    rank: usize,
    room: Arc<Room>,
    begun: Mutex<VecDeque<Vec<f32>>>,
}

impl Transport for Thread {
    fn rank(&self) -> usize {
        self.rank
    }
    fn size(&self) -> usize {
        self.room.said.lock().unwrap().len()
    }
    fn start_sum(&self, numbers: Vec<f32>) -> Result<()> {
        self.begun.lock().unwrap().push_back(numbers);
        Ok(())
    }
    fn finish_sum(&self) -> Result<Vec<f32>> {
        let own = self.begun.lock().unwrap().pop_front().unwrap();
        let bytes: Vec<u8> = own.iter().flat_map(|x| x.to_le_bytes()).collect();
        let all = self.gather(&bytes)?;
        let number = |rank: usize, i: usize| f32::from_le_bytes(all[rank][4 * i..4 * i + 4].try_into().unwrap());
        Ok((0..own.len()).map(|i| (1..all.len()).fold(number(0, i), |sum, rank| sum + number(rank, i))).collect())
    }
    fn gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.room.said.lock().unwrap()[self.rank] = own.to_vec();
        self.room.barrier.wait();
        let all = self.room.said.lock().unwrap().clone();
        assert!(all.iter().all(|said| said.len() == own.len()), "ranks are not at the same place");
        self.room.barrier.wait();
        Ok(all)
    }
    fn busy(&self) -> Duration {
        Duration::ZERO
    }
    fn abort(&self) {}
}

/// What each of `size` ranks makes of it, in the order of ranks.
fn among<T: Send>(size: usize, work: impl Fn(Communicator) -> T + Sync) -> Vec<T> {
    let room = Arc::new(Room { barrier: Barrier::new(size), said: Mutex::new(vec![Vec::new(); size]) });
    std::thread::scope(|scope| {
        let start = |rank| {
            let (room, work) = (room.clone(), &work);
            scope.spawn(move || work(Communicator::new(Arc::new(Thread { rank, room, begun: Mutex::default() }))))
        };
        let started: Vec<_> = (0..size).map(start).collect();
        started.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// The bits of all parameters, and the losses of all steps.
fn trained(device: &Device, whole: &OptimizerConfig, communicator: &Communicator) -> (Vec<u32>, Vec<f64>) {
    let config = RunConfig { model: model(), train: whole.clone(), ..RunConfig::preset("quickstart").unwrap() };
    let own = communicator.share(&config).unwrap();
    let mut trainer: Trainer = trainer(device, model(), own.train.clone(), schedule());
    trainer.join(communicator.clone()).unwrap();
    let losses = (0..whole.steps).map(|step| {
        let all = sequences(&config.model, step, whole.batch_size * whole.accumulate);
        let passes = all.chunks(whole.batch_size).map(|pass| pass.concat()).collect();
        let batch = |tokens: Vec<u32>| Batch::new(device, &config.model, &tokens, own.train.batch_size).unwrap();
        let batches: Vec<_> = communicator.scatter(passes, &own).into_iter().map(batch).collect();
        let record = trainer.step(&batches).unwrap();
        communicator.mean(&[trainer.numbers(&record).unwrap().loss]).unwrap()[0]
    });
    let losses = losses.collect();
    let host = trainer.model.parameters.to_host().unwrap();
    (host.values().flat_map(|t| t.data.iter().map(|v| v.to_bits())).collect(), losses)
}

#[test]
fn a_pass_for_each_rank_gives_the_bits_of_one_process() {
    for device in devices() {
        // Software GPUs are slow.
        let (sizes, steps): (&[usize], u64) = if device.is_cpu() { (&[2, 4], 30) } else { (&[2], 8) };
        for &size in sizes {
            let whole = OptimizerConfig { batch_size: 2, accumulate: size, ..optimizer(steps) };
            let (bits, losses) = trained(&device, &whole, &Communicator::single());
            for (of_rank, own_losses) in among(size, |communicator| trained(&device, &whole, &communicator)) {
                assert!(of_rank == bits, "{size} ranks on {}", device.describe());
                for (own, want) in own_losses.iter().zip(&losses) {
                    assert!((own - want).abs() < 1e-12, "{own} for {want}");
                }
            }
        }
    }
}

#[test]
fn ranks_that_share_a_pass_follow_one_process() {
    // At a low learning rate, since at a high one a rounding error can choose another weight, and
    // that grows.
    let whole = OptimizerConfig { batch_size: 6, accumulate: 2, lr: 2e-3, ..optimizer(50) };
    let device = Device::cpu();
    let (_, want) = trained(&device, &whole, &Communicator::single());
    for size in [1, 2, 3, 6, 12] {
        let all = among(size, |communicator| trained(&device, &whole, &communicator));
        for (bits, losses) in &all {
            assert!(*bits == all[0].0, "{size} ranks do not have the same weights");
            for (step, (own, want)) in losses.iter().zip(&want).enumerate() {
                assert!((own - want).abs() < 2e-6, "{size} ranks, step {step}: {own} for {want}");
            }
        }
        let again = among(size, |communicator| trained(&device, &whole, &communicator));
        assert!(again == all, "{size} ranks: another time, other bits");
    }
}

#[test]
fn shares_cover_the_batch_once() {
    let mut config = RunConfig::preset("quickstart").unwrap();
    config.model.block_size = 3;
    for (passes, sequences, size, own) in
        [(1, 8, 4, (1, 2)), (4, 2, 4, (1, 2)), (4, 6, 6, (2, 2)), (6, 5, 3, (2, 5)), (3, 4, 12, (1, 1))]
    {
        (config.train.accumulate, config.train.batch_size) = (passes, sequences);
        let whole: Vec<Vec<u32>> =
            (0..passes).map(|pass| (0..sequences * 3).map(|i| (pass * sequences * 3 + i) as u32).collect()).collect();
        let shares = among(size, |communicator| {
            let share = communicator.share(&config).unwrap();
            assert_eq!((share.train.accumulate, share.train.batch_size), own, "{passes}x{sequences} among {size}");
            let mine = communicator.scatter(whole.clone(), &share);
            assert_eq!(mine.len(), own.0);
            assert!(mine.iter().all(|pass| pass.len() == own.1 * 3));
            mine.concat()
        });
        let mut all = shares.concat();
        all.sort_unstable();
        assert_eq!(all, whole.concat(), "{passes}x{sequences} among {size}");
    }
}

#[test]
fn what_cannot_be_divided_is_refused() {
    let mut config = RunConfig::preset("quickstart").unwrap();
    (config.train.accumulate, config.train.batch_size) = (2, 9);
    let refused =
        |config: &RunConfig| among(4, |communicator| communicator.share(config).unwrap_err().to_string()).remove(0);
    let said = refused(&config);
    assert!(said.contains("train.batch_size") && said.contains("multiple of 2"), "{said}");
    // The passes of bridges stay whole.
    config.train.batch_size = 8;
    config.bridge = Some(BridgeConfig::default());
    let said = refused(&config);
    assert!(said.contains("train.accumulate") && said.contains("multiple of 4"), "{said}");
}

#[test]
fn whoever_differs_is_named() {
    let agree = |words: [&'static str; 5]| -> Vec<Result<()>> {
        among(5, move |communicator| communicator.assert_all_equal("weights", words[communicator.rank()]))
    };
    assert!(agree(["a"; 5]).iter().all(|result| result.is_ok()));
    for result in agree(["a", "a", "b", "a", "a"]) {
        assert_eq!(result.unwrap_err().to_string(), "rank 2 of 5 has other weights than the others");
    }
    // Even if it is the first.
    let said = agree(["b", "a", "a", "c", "a"]).remove(1).unwrap_err().to_string();
    assert_eq!(said, "ranks 0, 3 of 5 have other weights than the others");
    let two = among(2, |communicator| communicator.assert_all_equal("weights", &communicator.rank().to_string()))
        .remove(0)
        .unwrap_err()
        .to_string();
    assert_eq!(two, "rank 1 of 2 has other weights than the others");
}

#[test]
fn ranks_hear_the_first_and_find_their_place() {
    let words = ["first", "a longer one", ""];
    let heard = among(3, |communicator| {
        (communicator.broadcast(words[communicator.rank()]).unwrap(), communicator.topology().unwrap())
    });
    for (rank, (word, place)) in heard.iter().enumerate() {
        assert_eq!(word, "first");
        assert_eq!((place.local_rank, place.local_size), (rank, 3));
        let available = std::thread::available_parallelism().unwrap().get();
        assert_eq!(place.threads, (available / 3).max(1));
    }
    assert_eq!(
        among(3, |communicator| communicator.mean(&[communicator.rank() as f64, 7.0]).unwrap()),
        vec![vec![1.0, 7.0]; 3]
    );
}

fn config(size: usize) -> RunConfig {
    let mut config = RunConfig::preset("quickstart").unwrap();
    config.model = gossamer::model::ModelConfig { block_size: 16, vocab_size: 300, ..model() };
    config.sparsity = schedule();
    config.train = OptimizerConfig { batch_size: 4, accumulate: size, lr: 2e-3, ..optimizer(20) };
    config.data.generated_documents = 60;
    config.data.val_fraction = 0.1;
    config.run.log_every = 1;
    config.run.eval_every = 0;
    config.run.eval_sequences = 8;
    config.run.checkpoint_every = 10;
    config
}

fn execute(
    folder: &Path,
    config: &RunConfig,
    communicator: &Communicator,
    resume: bool,
    odd: bool,
) -> Result<TrainResult> {
    let cache = folder.with_file_name("cache");
    let (device, communicator) = (Device::cpu(), communicator.clone());
    let seed = config.run.seed + u64::from(odd);
    let run = Run {
        config: config.clone(),
        folder: folder.into(),
        cache,
        device,
        observer: Observer::default(),
        communicator,
    };
    let fresh = || Model::new(run.config.model.clone(), seed, &run.device);
    run.execute_with(resume, Estimate::new(config, &Device::cpu())?, fresh, |trainer, _| Ok(trainer), &mut |_| ())
}

fn losses(folder: &Path) -> Vec<f64> {
    let log = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["loss"].as_f64().unwrap()).collect()
}

#[test]
fn a_run_goes_on_with_another_number_of_ranks() {
    let dir = tempdir().unwrap();
    let [alone, many] = ["alone", "many"].map(|name| dir.path().join(name));
    let config = config(4);
    execute(&alone, &config, &Communicator::single(), false, false).unwrap();
    let read =
        |run: &Path, step: u32| std::fs::read(run.join(format!("checkpoints/step-{step}/model.safetensors"))).unwrap();
    for outcome in among(4, |communicator| execute(&many, &config, &communicator, false, false).unwrap()) {
        assert!(outcome.finished && outcome.step == 20);
        assert_eq!(outcome.communication.unwrap().ranks, 4);
    }
    assert!(read(&many, 20) == read(&alone, 20), "four ranks, a pass each, and not the bits of one process");
    assert_eq!(losses(&many).len(), 20);
    let want = losses(&alone);
    // As if stopped at step 10, and from there two ranks, then three that divide passes of four and
    // are refused.
    std::fs::remove_dir_all(many.join("checkpoints/step-20")).unwrap();
    let said = among(3, |communicator| execute(&many, &config, &communicator, true, false).err().unwrap().to_string())
        .remove(0);
    assert!(said.contains("train.batch_size"), "{said}");
    among(2, |communicator| execute(&many, &config, &communicator, true, false).map(drop).unwrap());
    let got = losses(&many);
    assert_eq!(got.len(), 20);
    for (step, (got, want)) in got.iter().zip(&want).enumerate() {
        assert!((got - want).abs() < 2e-6, "step {step}: {got} for {want}");
    }
}

#[test]
fn ranks_with_other_weights_do_not_train() {
    let dir = tempdir().unwrap();
    let (run, config) = (dir.path().join("run"), config(3));
    let ended =
        among(3, |communicator| execute(&run, &config, &communicator, false, communicator.rank() == 1).err().unwrap());
    for error in ended {
        assert!(matches!(error, Error::Communication(_)));
        assert_eq!(error.to_string(), "rank 1 of 3 has other weights after step 0 than the others");
    }
    assert!(!run.join("checkpoints").exists());
}

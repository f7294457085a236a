//! The program that the command line of a job starts.

use std::path::Path;
use std::process::Command;

use crate::train::communicator::forget_launcher;

/// Programs that start another program several times.
const LAUNCHERS: [&str; 3] = ["mpirun", "mpiexec", "srun"];

/// The program that a word of a command line names, without its folder.
fn program(word: &str) -> &str {
    let path = Path::new(word);
    let stem =
        if path.extension().is_some_and(|extension| extension == "exe") { path.file_stem() } else { path.file_name() };
    stem.and_then(|name| name.to_str()).unwrap_or(word)
}

/// Whether the first word is a launcher.
fn is_launched(words: &[String]) -> bool {
    words.first().is_some_and(|first| LAUNCHERS.contains(&program(first)))
}

/// The position of `train` in a command: first, or after a launcher and its options.
pub(super) fn train(words: &[String]) -> Option<usize> {
    let searched = if is_launched(words) { words.len() } else { 1 };
    words.iter().take(searched).position(|word| program(word) == "train")
}

/// The same, if the command trains a model.
pub(super) fn training(words: &[String]) -> Option<usize> {
    let other = |at: &usize| words.get(at + 1).is_some_and(|word| word == "tokenizer" || word == "circuit");
    train(words).filter(|at| !other(at))
}

/// The command of these words. `train` and `gossamer` are taken from the folder `programs` if they
/// are there.
pub(super) fn command(words: &[String], programs: &Path) -> Command {
    let at = train(words).unwrap_or(0);
    let word = |(position, word): (usize, &String)| {
        let near = programs.join(format!("{word}{}", std::env::consts::EXE_SUFFIX));
        let ours = (position == 0 || position == at) && matches!(word.as_str(), "train" | "gossamer");
        if ours && near.exists() { near.into_os_string() } else { word.into() }
    };
    let mut found = words.iter().enumerate().map(word);
    let mut command = Command::new(found.next().unwrap_or_default());
    command.args(found);
    if !is_launched(words) {
        forget_launcher(&mut command);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_training_command_is_recognized_after_folders_and_launchers() {
        for (line, at) in [
            ("train --steps 3", Some(0)),
            ("/opt/bin/train bridges", Some(0)),
            ("mpirun -n 2 train --steps 3", Some(3)),
            ("/usr/bin/srun --ntasks=2 ./train", Some(2)),
            ("train circuit runs/a", None),
            ("mpiexec train tokenizer", None),
            ("python train", None),
            ("train.py", None),
        ] {
            let words: Vec<String> = line.split(' ').map(String::from).collect();
            assert_eq!(training(&words), at, "{line}");
        }
    }
}

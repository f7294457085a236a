//! Disks that are full, read-only, or not there.

use std::fs;
#[cfg(unix)]
use std::process::Command;

use tempfile::tempdir;

#[cfg(unix)]
use super::resume;
use super::{fails, text, tiny, train};

#[test]
fn an_output_that_cannot_be_a_folder_is_named() {
    let dir = tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "mine").unwrap();
    fails(&mut tiny(&file, &[]), &[text(&file)]);
    fails(&mut tiny(&file.join("run"), &[]), &[text(&file)]);
    fails(&mut train(&["--resume", text(&file)]), &[text(&file)]);
    // The place of the tokenised corpus.
    fs::write(dir.path().join("cache"), "mine").unwrap();
    fails(&mut tiny(&dir.path().join("run"), &[]), &["cache"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
}

/// A write that the system refuses half-way, by a limit on the size of files: what was saved before
/// stays and continues.
#[cfg(unix)]
#[test]
fn a_write_refused_half_way_loses_nothing() {
    let dir = tempdir().unwrap();
    let (run, whole) = (dir.path().join("run"), dir.path().join("whole"));
    let settings = ["n_layer=1", "vocab_size=600"];
    super::succeeds(&mut tiny(&whole, &settings));
    let limited = |command: &Command| {
        let mut shell = Command::new("sh");
        // Units of 512 or 1024 bytes, whichever shell this is; the optimizer's file is larger, all
        // before it is smaller.
        shell.args(["-c", "trap '' XFSZ; ulimit -f 2200; exec \"$0\" \"$@\""]).arg(command.get_program());
        shell.args(command.get_args());
        shell
    };
    let size = |name: &str| fs::metadata(whole.join("checkpoints/step-40").join(name)).unwrap().len();
    assert!(size("model.safetensors") > 1_126_400 && size("optimizer.safetensors") > 2_252_800);
    fails(&mut limited(&tiny(&run, &settings)), &["safetensors"]);
    assert_eq!(fs::read_dir(run.join("checkpoints")).unwrap().count(), 0, "half a checkpoint was left");
    super::succeeds(&mut resume(&run));
    super::assert_same_results(&run, &whole, 40);
}

#[cfg(target_os = "linux")]
mod mounted {
    use std::path::PathBuf;

    use super::super::{assert_same_results, contents, succeeds};
    use super::*;

    /// A small file system in memory.
    struct Mounted(PathBuf);

    impl Mounted {
        /// `None` where mounting is not permitted.
        fn new(path: PathBuf, options: &str) -> Option<Self> {
            fs::create_dir(&path).unwrap();
            let mount = Command::new("mount").args(["-t", "tmpfs", "-o", options, "none", text(&path)]).output();
            mount.is_ok_and(|output| output.status.success()).then_some(Self(path))
        }

        fn remount(&self, options: &str) {
            let options = format!("remount,{options}");
            assert!(Command::new("mount").args(["-o", &options, text(&self.0)]).status().unwrap().success());
        }
    }

    impl Drop for Mounted {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        }
    }

    #[test]
    fn a_full_or_read_only_disk_loses_nothing() {
        let dir = tempdir().unwrap();
        // Room for the corpus and two checkpoints, not for a third.
        let Some(disk) = Mounted::new(dir.path().join("disk"), "size=3200k") else {
            println!("mounting is not permitted here; `a_write_refused_half_way_loses_nothing` covers a failed write");
            return;
        };
        let (run, whole) = (disk.0.join("run"), dir.path().join("whole"));
        succeeds(&mut tiny(&whole, &[]));
        fails(&mut tiny(&run, &[]), &["No space left on device", text(&disk.0)]);
        let left = contents(&run.join("checkpoints"));
        assert_eq!(left.len(), 8, "two whole checkpoints: {:?}", left.keys());
        fails(&mut resume(&run), &["No space left on device"]);
        assert!(contents(&run.join("checkpoints")) == left);

        disk.remount("size=16m,ro");
        fails(&mut resume(&run), &["Read-only file system", text(&disk.0)]);
        fails(&mut tiny(&disk.0.join("new"), &[]), &["Read-only file system", text(&disk.0)]);
        disk.remount("rw");
        let said = succeeds(&mut resume(&run));
        assert!(said.contains("at step 10"), "{said}");
        assert_same_results(&run, &whole, 40);
    }
}

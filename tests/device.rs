//! What a device does apart from computing: compiled kernels, and choices of what is fastest, that
//! are kept from one run to the next.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{devices, normal, put, rng};
use gossamer::device::{Device, Gpu, GpuOptions};
use gossamer::ops::{abs_topk, linear};
use tempfile::tempdir;

/// Opens a GPU that keeps its kernels in `cache`, and returns the bits of what some kernels compute
/// on it.
fn compute(cache: Option<&Path>) -> Vec<u32> {
    let device = Device::Gpu(gpu(cache));
    let mut rng = rng(3);
    let (x, w) = (put(&device, &[5, 7], &normal(&mut rng, 35)), put(&device, &[9, 7], &normal(&mut rng, 63)));
    let y = abs_topk::forward(&linear::forward(&x, &w, None).unwrap(), 3).unwrap().y;
    y.read().unwrap().into_iter().map(f32::to_bits).collect()
}

/// The only file in the folder.
fn only_file(folder: &Path) -> PathBuf {
    let paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(paths.len(), 1, "{paths:?}");
    paths[0].clone()
}

/// Whether the first adapter's backend hands compiled kernels out.
fn keeps_kernels() -> bool {
    gossamer::device::adapters().iter().find(|a| a.computes).unwrap().features.iter().any(|f| f == "pipeline cache")
}

#[test]
fn kernels_are_kept_and_found_again() {
    let folder = tempdir().unwrap();
    let cache = folder.path().join("a/b");
    let want = compute(None);
    assert!(want.iter().filter(|bits| **bits != 0).count() == 15, "{want:?}");
    assert_eq!(compute(Some(&cache)), want);
    assert_eq!(cache.exists(), keeps_kernels());
    if cache.exists() {
        let file = only_file(&cache);
        let kept = fs::read(&file).unwrap();
        assert!(kept.starts_with(concat!("kernels of gossamer ", env!("CARGO_PKG_VERSION"), "\n").as_bytes()));
        let written = fs::metadata(&file).unwrap().modified().unwrap();
        assert_eq!(compute(Some(&cache)), want);
        let now = fs::read(only_file(&cache)).unwrap();
        assert!(now.len() >= kept.len());
        // With nothing new there is nothing to write.
        assert!(now != kept || fs::metadata(&file).unwrap().modified().unwrap() == written);
    }
}

#[test]
fn a_damaged_or_foreign_file_stops_nothing() {
    let folder = tempdir().unwrap();
    let cache = folder.path();
    let want = compute(Some(cache));
    if !keeps_kernels() {
        return assert_eq!(fs::read_dir(cache).unwrap().count(), 0);
    }
    let file = only_file(cache);
    let sound = fs::read(&file).unwrap();
    let mut damaged: Vec<Vec<u8>> = [0, 1, 7, 40, sound.len() - 1].map(|end| sound[..end].to_vec()).into();
    for at in (0..sound.len()).step_by(sound.len().div_ceil(16)) {
        let mut flipped = sound.clone();
        flipped[at] ^= 1;
        damaged.push(flipped);
    }
    let first_line = sound.iter().position(|&byte| byte == b'\n').unwrap();
    damaged.push([b"kernels of gossamer 0.0.9".as_slice(), &sound[first_line..]].concat());
    damaged.push(vec![0x5a; 1 << 16]);
    damaged.push([sound.clone(), vec![0]].concat());
    // Whole, and of this version, but of no adapter: `checksum` finds the four bytes that the
    // reader expects.
    let head = &sound[..=first_line];
    for foreign in [b"".as_slice(), b"WGPUPLCH", &[0; 200], &altered(&sound[head.len() + 4..])] {
        damaged.push([head, &crc32c::crc32c(foreign).to_le_bytes(), foreign].concat());
    }
    for bytes in damaged {
        fs::write(&file, &bytes).unwrap();
        assert!(compute(Some(cache)) == want, "{} bytes", bytes.len());
        assert!(fs::read(&file).unwrap().starts_with(head), "a file of {} bytes is replaced", bytes.len());
    }
    // Far too long.
    fs::File::create(&file).unwrap().set_len(1 << 40).unwrap();
    assert_eq!(compute(Some(cache)), want);
    assert!(fs::metadata(&file).unwrap().len() < 1 << 30);
}

/// wgpu's data as another adapter's: its key is what follows magic, two numbers and the backend's
/// byte.
fn altered(data: &[u8]) -> Vec<u8> {
    let mut data = data.to_vec();
    data[17] ^= 0x55;
    data
}

#[test]
fn a_folder_that_cannot_be_written_stops_nothing() {
    let folder = tempdir().unwrap();
    let want = compute(None);
    let file = folder.path().join("file");
    fs::write(&file, "not a folder").unwrap();
    assert_eq!(compute(Some(&file)), want);
    assert_eq!(compute(Some(&file.join("below"))), want);
    assert_eq!(fs::read(&file).unwrap(), b"not a folder");
    // A folder lies where the file would.
    let cache = folder.path().join("cache");
    compute(Some(&cache));
    if cache.exists() {
        let kept = only_file(&cache);
        fs::remove_file(&kept).unwrap();
        fs::create_dir(&kept).unwrap();
        assert_eq!(compute(Some(&cache)), want);
        assert!(kept.is_dir());
    }
}

fn gpu(cache: Option<&Path>) -> Gpu {
    let options = GpuOptions { cache: cache.map(Path::to_path_buf), subgroups: true, checked: false, shaders: None };
    Gpu::open_with(None, &options).expect("an adapter")
}

#[test]
fn sizes_that_overflow_are_refused() {
    for device in devices() {
        for shape in [&[usize::MAX, 2][..], &[1 << 32, 1 << 32], &[1 << 31, 1 << 31, 1]] {
            let error = device.zeros::<f32>("too large", shape).unwrap_err();
            assert!(error.to_string().contains("too large"), "{error}");
        }
        let none = device.zeros::<f32>("none", &[0, 3]).unwrap();
        assert!(none.reshape(&[3, 0]).is_ok());
        // Their product is 2^64, which is 0 in 64 bits.
        assert!(none.reshape(&[1 << 32, 1 << 32]).is_err());
    }
}

#[test]
fn what_others_still_read_is_not_written() {
    for device in devices() {
        let mut x = put(&device, &[3], &[1.0, 2.0, 3.0]);
        let seen = x.reshape(&[1, 3]).unwrap();
        assert!(x.write(&[4.0, 5.0, 6.0]).is_err() && x.clear().is_err());
        assert_eq!(seen.read().unwrap(), [1.0, 2.0, 3.0]);
        drop(seen);
        x.write(&[7.0, 8.0, 9.0]).unwrap();
        assert_eq!(x.read().unwrap(), [7.0, 8.0, 9.0]);
    }
}

#[test]
fn choices_are_kept_when_asked_to() {
    let folder = tempdir().unwrap();
    let cache = folder.path().join("cache");
    let first = gpu(Some(&cache));
    assert_eq!(first.tuned("linear large").unwrap(), None);
    first.set_tuned("linear large", 2).unwrap();
    first.set_tuned("linear small", 0).unwrap();
    first.set_tuned("linear small", 1).unwrap();
    assert_eq!(first.tuned("linear small").unwrap(), Some(1));
    assert_eq!(gpu(Some(&cache)).tuned("linear large").unwrap(), None, "not kept yet");
    let path = first.save_tuning().unwrap().expect("a file");
    assert_eq!(path.parent(), Some(&*cache));
    let again = gpu(Some(&cache));
    assert_eq!(
        ["linear large", "linear small", "else"].map(|name| again.tuned(name).unwrap()),
        [Some(2), Some(1), None]
    );
    assert_eq!(gpu(None).tuned("linear large").unwrap(), None);
    assert_eq!(gpu(None).save_tuning().unwrap(), None);

    // Another adapter's, or damaged.
    let kept = fs::read_to_string(&path).unwrap();
    for wrong in ["", "{}", "[]", &kept.replace("gossamer", "gossamer 9"), &kept.replace('2', "-2"), &kept[..20]] {
        fs::write(&path, wrong).unwrap();
        assert_eq!(gpu(Some(&cache)).tuned("linear large").unwrap(), None, "{wrong}");
    }
    // Asked for in words, so that it says when it cannot.
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(gpu(Some(&file)).save_tuning().unwrap_err().to_string().contains("file"));
}

#[test]
fn an_index_opens_the_adapter_that_is_listed_with_it() {
    let list = gossamer::device::adapters();
    for adapter in list.iter().filter(|adapter| adapter.computes) {
        let gpu = Gpu::open(Some(&adapter.index.to_string())).unwrap();
        let info = gpu.info();
        assert_eq!((&info.name, info.backend.to_string()), (&adapter.name, adapter.backend.clone()));
    }
    // Those of GL, which is only woken where nothing else will do, come last.
    let gl: Vec<bool> = list.iter().map(|adapter| adapter.backend == "gl").collect();
    assert!(gl.is_sorted(), "{gl:?}");
    assert!(Gpu::open(Some(&list.len().to_string())).is_err());
}

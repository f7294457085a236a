//! The pictures of README and docs: each is made by `scripts/pictures`, and none is left over.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The paths of pictures that a page shows, from the repository's root.
fn shown(page: &Path, root: &Path) -> Vec<String> {
    let text = fs::read_to_string(page).unwrap();
    let folder = page.parent().unwrap();
    let targets = text.split("![").skip(1).filter_map(|rest| rest.split_once("](")?.1.split(')').next());
    targets.map(|path| folder.join(path).strip_prefix(root).unwrap().to_str().unwrap().to_string()).collect()
}

#[test]
fn one_script_makes_every_picture() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = |folder: &str| {
        let entries = fs::read_dir(root.join(folder)).unwrap();
        entries.map(|entry| format!("{folder}/{}", entry.unwrap().file_name().to_string_lossy())).collect::<Vec<_>>()
    };
    let pages = files("docs").into_iter().filter(|name| name.ends_with(".md")).chain(["README.md".to_string()]);
    let shown: BTreeSet<String> = pages.flat_map(|page| shown(&root.join(page), root)).collect();
    assert!(shown.len() >= 6, "{shown:?}");

    let script = fs::read_to_string(root.join("scripts/pictures")).unwrap();
    for picture in &shown {
        assert!(root.join(picture).is_file(), "{picture} is missing");
        // The explorer's tests make those of the window.
        assert!(script.contains(picture) || picture.starts_with("app/tests/snapshots/"), "who makes {picture}?");
    }
    let pictures = files("docs").into_iter().filter(|name| name.ends_with(".png") || name.ends_with(".svg"));
    let unused: Vec<_> = pictures.filter(|name| !shown.contains(name)).collect();
    assert!(unused.is_empty(), "no page shows {unused:?}");
}

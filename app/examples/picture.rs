//! What the window looks like with a bridge edit in it: `cargo run --release -p gossamer-explorer
//! --example picture -- CIRCUIT CHANNEL FILE.png`. The circuit's model has bridges next to it. The
//! README's picture was made so.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use eframe::Storage;
use eframe::egui::Theme;
use egui_kittest::Harness;
use egui_kittest::kittest::Queryable;
use gossamer_explorer::explorer::Explorer;
use gossamer_explorer::view::View;

struct LastSession(String);

impl Storage for LastSession {
    fn get_string(&self, key: &str) -> Option<String> {
        (key == "session").then(|| self.0.clone())
    }
    fn set_string(&mut self, _: &str, _: String) {}
    fn remove_string(&mut self, _: &str) {}
    fn flush(&mut self) {}
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [circuit, channel, file] = &arguments[..] else { anyhow::bail!("name a circuit, a channel and a file") };
    let path = PathBuf::from(circuit);
    let mut view = View::default();
    view.edits.live.steer.channel = Some(channel.clone());
    let left = LastSession(serde_json::json!({ "views": BTreeMap::from([(circuit, view)]) }).to_string());

    let builder = Harness::builder().with_size([1280.0, 720.0]).with_theme(Theme::Light).wgpu();
    let mut harness = builder.build_eframe(move |context| Explorer::new(&context.egui_ctx, Some(&left), Some(&path)));
    wait(&mut harness, |h| h.query_by_label("Bridge").is_some())?;
    harness.get_by_label("Bridge").click();
    wait(&mut harness, |h| h.query_by_label("up to date").is_some())?;
    harness.remove_cursor();
    harness.run_steps(4);
    let image = harness.render().map_err(anyhow::Error::msg)?;
    image.save(Path::new(file)).with_context(|| file.clone())?;
    Ok(())
}

fn wait(harness: &mut Harness<'_, Explorer>, until: impl Fn(&Harness<'_, Explorer>) -> bool) -> Result<()> {
    let start = Instant::now();
    while !until(harness) {
        ensure!(start.elapsed() < Duration::from_secs(60), "the window did not get there");
        std::thread::sleep(Duration::from_millis(20));
        harness.step();
    }
    Ok(())
}

//! The visible part of the drawing as a PNG file.

use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;

use eframe::egui::{ColorImage, Context, Pos2, Rect, vec2};
use gossamer::files::write_atomic;

use crate::jobs::Job;

#[derive(Default)]
pub struct Snapshots {
    /// The file to write, and how many frames to wait until menus are closed.
    requested: Option<(PathBuf, u8)>,
    saving: Option<Job<Result<PathBuf, String>>>,
}

impl Snapshots {
    pub fn request(&mut self, path: PathBuf) {
        self.requested = Some((path, 2));
    }

    /// At the end of a frame: takes a requested picture of `part` of the window when its time has
    /// come.
    pub fn update(&mut self, ctx: &Context, part: Option<Rect>) {
        let Some((path, frames)) = self.requested.take() else { return };
        ctx.request_repaint();
        if frames > 0 {
            self.requested = Some((path, frames - 1));
            return;
        }
        let (sender, images) = channel();
        let (waker, scale) = (ctx.clone(), ctx.pixels_per_point());
        ctx.request_screenshot(move |image| drop(sender.send(image)));
        self.saving = Some(Job::run(
            move || waker.request_repaint(),
            move |_| {
                let image = images.recv().map_err(|_| "the window took no picture: try again")?;
                let [width, height] = image.size.map(|side| side as f32 / scale);
                let window = Rect::from_min_size(Pos2::ZERO, vec2(width, height));
                let visible = part.map_or(window, |part| part.intersect(window));
                if !visible.is_positive() {
                    return Err("nothing of the drawing can be seen: make the window larger".into());
                }
                save(&image.region(&visible, Some(scale)), &path).map(|()| path)
            },
        ));
    }

    /// The file that was written since the last call, or the error.
    pub fn finished(&mut self) -> Option<Result<PathBuf, String>> {
        Job::take_result(&mut self.saving)
    }
}

fn save(image: &ColorImage, path: &Path) -> Result<(), String> {
    let [width, height] = image.size.map(|side| u32::try_from(side).unwrap_or(u32::MAX));
    let pixels: Vec<u8> = image.pixels.iter().flat_map(|pixel| pixel.to_array()[..3].to_vec()).collect();
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    let written = encoder.write_header().and_then(|mut writer| writer.write_image_data(&pixels));
    written.map_err(|e| format!("the picture could not be written as PNG: {e}"))?;
    let to_file = write_atomic(path, |out| out.write_all(&bytes).map_err(|e| gossamer::Error::io(path, e)));
    to_file.map_err(|e| e.to_string())
}

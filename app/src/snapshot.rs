//! What is seen, as a PNG file.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use eframe::egui::{ColorImage, Context, Pos2, Rect, vec2};
use gossamer::files::write_atomic;

/// Pictures that are being taken and written.
pub struct Snapshots {
    /// What was asked for, and how many frames it waits so that menus are gone.
    wanted: Option<(PathBuf, u8)>,
    sender: Sender<Result<PathBuf, String>>,
    receiver: Receiver<Result<PathBuf, String>>,
}

impl Default for Snapshots {
    fn default() -> Self {
        let (sender, receiver) = channel();
        Self { wanted: None, sender, receiver }
    }
}

impl Snapshots {
    /// Asks for a picture in the file at `path`.
    pub fn ask(&mut self, path: PathBuf) {
        self.wanted = Some((path, 2));
    }

    /// At the end of a frame: takes the picture of `part` of the window if it is time.
    pub fn take(&mut self, ctx: &Context, part: Option<Rect>) {
        let Some((path, wait)) = self.wanted.take() else { return };
        ctx.request_repaint();
        if wait > 0 {
            self.wanted = Some((path, wait - 1));
            return;
        }
        let (sender, waker, scale) = (self.sender.clone(), ctx.clone(), ctx.pixels_per_point());
        ctx.request_screenshot(move |image| {
            let work = move || {
                let [width, height] = image.size.map(|side| side as f32 / scale);
                let whole = Rect::from_min_size(Pos2::ZERO, vec2(width, height));
                let seen = part.map_or(whole, |part| part.intersect(whole));
                let saved = match seen.is_positive() {
                    true => save(&image.region(&seen, Some(scale)), &path).map(|()| path),
                    false => Err("nothing of the drawing can be seen: make the window larger".into()),
                };
                // A window that was closed in the meantime no longer listens.
                drop(sender.send(saved));
                waker.request_repaint();
            };
            // A system that has no thread left to give has worse troubles than a missing picture.
            drop(thread::Builder::new().name("picture".into()).spawn(work));
        });
    }

    /// The file that was written since it was asked last, or what went wrong.
    pub fn finished(&mut self) -> Option<Result<PathBuf, String>> {
        self.receiver.try_recv().ok()
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

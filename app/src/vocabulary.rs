//! The tokens of the selected item's residual channel, where the model is at hand.

use std::collections::BTreeMap;

use eframe::egui::Ui;
use gossamer::circuits::wording::{signed, token};
use gossamer::circuits::{TokenWeights, channel_tokens};
use gossamer::formats::ModelFiles;

use crate::document::Document;
use crate::item::Item;
use crate::jobs::Job;

/// Tokens that are listed of a channel.
const LISTED: usize = 16;

/// What was looked up.
#[derive(Default)]
pub struct Vocabulary {
    known: BTreeMap<usize, Result<[TokenWeights; 2], String>>,
    wanted: Option<usize>,
    /// Columns of the embedding and the unembedding.
    looking: Option<Job<Result<[TokenWeights; 2], String>>>,
}

impl Vocabulary {
    /// Shows the tokens of the item's channel, if it has one.
    pub fn show(&mut self, ui: &mut Ui, document: &Document, selected: Option<Item>) {
        if let Some((channel, found)) = self.wanted.zip(Job::take_result(&mut self.looking)) {
            self.known.insert(channel, found);
        }
        let channel = match selected {
            Some(Item::Embedding(channel) | Item::Unembedding(channel)) => Some(channel),
            Some(Item::Node(node)) => document.circuit.model.residual_channel(node),
            None => None,
        };
        let Some(channel) = channel else { return };
        if !self.known.contains_key(&channel) && self.wanted != Some(channel) {
            self.wanted = Some(channel);
            self.look_up(ui, document, channel);
        }
        let Some(found) = self.known.get(&channel) else { return };
        ui.separator();
        match found {
            Err(why) => drop(ui.weak(format!("tokens of residual channel {channel}: {why}"))),
            Ok(columns) => {
                for (name, column) in ["embedding", "unembedding"].into_iter().zip(columns) {
                    ui.collapsing(format!("{name} of residual channel {channel}"), |ui| {
                        if column.tokens.is_empty() {
                            ui.weak("all its weights are zero");
                        }
                        for t in &column.tokens {
                            ui.label(format!("{} {}", token(&t.text), signed(t.weight)));
                        }
                    });
                }
            }
        }
    }

    fn look_up(&mut self, ui: &Ui, document: &Document, channel: usize) {
        let Some(path) = document.model_path() else { return };
        let (tokenizer, waker) = (document.tokenizer.clone(), ui.ctx().clone());
        let work = move |_: &_| {
            let found = ModelFiles::open(&path).and_then(|files| {
                channel_tokens(&files.config, files.weights.as_ref(), tokenizer.as_ref(), channel, LISTED)
            });
            found.map_err(|e| e.to_string())
        };
        self.looking = Some(Job::run(move || waker.request_repaint(), work));
    }
}

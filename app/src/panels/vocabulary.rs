//! The tokens of the selected item's residual channel, where the model is at hand.

use std::collections::BTreeMap;

use eframe::egui::Ui;
use gossamer::circuits::labels::{signed, token};
use gossamer::circuits::{TokenWeights, channel_tokens};
use gossamer::formats::ModelFiles;

use super::{Panel, PanelContext};
use crate::document::Document;
use crate::item::Item;
use crate::jobs::Job;

/// How many tokens of a channel are listed.
const LISTED: usize = 16;

#[derive(Default)]
pub struct VocabularyPanel {
    /// The columns of the embedding and the unembedding, by channel.
    known: BTreeMap<usize, Result<[TokenWeights; 2], String>>,
    requested: Option<usize>,
    job: Option<Job<Result<[TokenWeights; 2], String>>>,
}

impl Panel for VocabularyPanel {
    fn ui(&mut self, ui: &mut Ui, context: &mut PanelContext) {
        if let Some((channel, columns)) = self.requested.zip(Job::take_result(&mut self.job)) {
            self.known.insert(channel, columns);
        }
        let document = context.document;
        let channel = match context.view.selected {
            Some(Item::Embedding(channel) | Item::Unembedding(channel)) => Some(channel),
            Some(Item::Node(node)) => document.circuit.model.residual_channel(node),
            Some(Item::Group(_)) | None => None,
        };
        let Some(channel) = channel else { return };
        if !self.known.contains_key(&channel) && self.requested != Some(channel) {
            self.requested = Some(channel);
            self.look_up(ui, document, channel);
        }
        let Some(columns) = self.known.get(&channel) else { return };
        ui.separator();
        match columns {
            Err(error) => drop(ui.weak(format!("tokens of residual channel {channel}: {error}"))),
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
}

impl VocabularyPanel {
    fn look_up(&mut self, ui: &Ui, document: &Document, channel: usize) {
        let Some(path) = document.model_path() else { return };
        let (tokenizer, waker) = (document.tokenizer.clone(), ui.ctx().clone());
        let work = move |_: &_| {
            let columns = ModelFiles::open(&path).and_then(|files| {
                channel_tokens(&files.config, files.weights.as_ref(), tokenizer.as_ref(), channel, LISTED)
            });
            columns.map_err(|e| e.to_string())
        };
        self.job = Some(Job::run(move || waker.request_repaint(), work));
    }
}

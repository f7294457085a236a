//! What is kept from one session to the next.

use std::collections::BTreeMap;
use std::path::PathBuf;

use eframe::Storage;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::document::Document;
use crate::panels::Docks;
use crate::run_window::RunChoices;
use crate::view::View;

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Session {
    /// The files that were open, the latest first.
    #[serde(deserialize_with = "readable")]
    pub recent: Vec<PathBuf>,
    /// The views of files by name; the example's name is empty.
    #[serde(deserialize_with = "each_readable")]
    pub views: BTreeMap<String, View>,
    /// The names in `views`, the one that was open last at the end.
    #[serde(deserialize_with = "readable")]
    order: Vec<String>,
    /// The open docks.
    #[serde(deserialize_with = "readable")]
    pub docks: Docks,
    /// The last choices for training and circuit search.
    #[serde(deserialize_with = "readable")]
    pub runs: RunChoices,
}

/// A part of the session: if it cannot be read, the other parts still are.
fn readable<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(from: D) -> Result<T, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(from)?).unwrap_or_default())
}

fn each_readable<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, View>, D::Error> {
    let all: BTreeMap<String, Value> = readable(from)?;
    Ok(all.into_iter().filter_map(|(name, view)| Some((name, serde_json::from_value(view).ok()?))).collect())
}

/// The name of a document's view.
fn key(document: &Document) -> String {
    document.path.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
}

impl Session {
    pub fn load(storage: Option<&dyn Storage>) -> Self {
        let saved = storage.and_then(|storage| storage.get_string("session"));
        saved.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
    }

    /// Whether one was stored.
    pub fn is_in(storage: &dyn Storage) -> bool {
        storage.get_string("session").is_some()
    }

    pub fn save(&mut self, storage: &mut dyn Storage) {
        self.drop_oldest_views();
        if let Ok(text) = serde_json::to_string(self) {
            storage.set_string("session", text);
        }
    }

    /// Notes that a document was opened. Returns its view.
    pub fn open(&mut self, document: &Document) -> View {
        const RECENT: usize = 12;
        // The session is JSON, which cannot hold other paths.
        if let Some(path) = document.path.as_ref().filter(|path| path.to_str().is_some()) {
            self.recent.retain(|other| other != path);
            self.recent.insert(0, path.clone());
            self.recent.truncate(RECENT);
        }
        self.views.get(&key(document)).cloned().unwrap_or_default()
    }

    pub fn keep(&mut self, document: &Document, view: &View) {
        let name = key(document);
        self.order.retain(|other| *other != name);
        self.order.push(name.clone());
        self.views.insert(name, view.clone());
    }

    fn drop_oldest_views(&mut self) {
        const VIEWS: usize = 500;
        let Self { views, order, .. } = self;
        views.retain(|_, view| *view != View::default());
        order.retain(|name| views.contains_key(name));
        // Views of earlier versions have no place in the order: they are older.
        let unordered: Vec<String> = views.keys().filter(|name| !order.contains(name)).cloned().collect();
        order.splice(0..0, unordered);
        for name in order.drain(..views.len().saturating_sub(VIEWS)) {
            views.remove(&name);
        }
    }
}

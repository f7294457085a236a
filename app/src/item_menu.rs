//! The menu of a box of the drawing.

use std::collections::BTreeSet;

use eframe::egui::{Context, Ui};

use crate::item::Item;
use crate::live::choices::{Becomes, Setting};
use crate::view::{Edits, Trace, View};

/// What can be done with an item.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Choice {
    Pin,
    Hide,
    Follow(Trace),
    /// What a node becomes in prompts; unchanged if `None`.
    Set(Option<Becomes>),
    CopyName,
    /// Draws a group as one box, or its members again.
    Collapse,
    /// Moves a group back to its own place.
    PutBack,
}

/// Shows the menu. Returns what was chosen.
pub fn show(ui: &mut Ui, item: Item, view: &View) -> Option<Choice> {
    let Edits { pinned, hidden, live, .. } = &view.edits;
    let mut rows = match item {
        Item::Group(number) => group_rows(number, &view.edits),
        item => vec![
            (Choice::Pin, if pinned.contains(&item) { "Unpin" } else { "Pin" }),
            (Choice::Hide, if hidden.contains(&item) { "Show" } else { "Hide" }),
        ],
    };
    rows.extend([
        (Choice::Follow(Trace::Upstream), "Follow upstream"),
        (Choice::Follow(Trace::Downstream), "Follow downstream"),
    ]);
    if let Item::Node(node) = item {
        let now = live.settings.get(&node).map(|setting| setting.becomes);
        let all = [
            (Some(Becomes::Mean), "Ablate in prompts"),
            (Some(Becomes::Value(0.0)), "Set to zero in prompts"),
            (None, "Leave unchanged in prompts"),
        ];
        rows.extend(all.into_iter().filter(|(becomes, _)| *becomes != now).map(|(to, name)| (Choice::Set(to), name)));
    }
    rows.push((Choice::CopyName, "Copy name"));
    ui.weak(name(item, &view.edits));
    let mut chosen = None;
    for (choice, name) in rows {
        if ui.button(name).clicked() {
            chosen = Some(choice);
            ui.close();
        }
    }
    chosen
}

fn group_rows(number: usize, edits: &Edits) -> Vec<(Choice, &'static str)> {
    let collapsed = if edits.is_collapsed(number) { "Expand the group" } else { "Collapse the group" };
    let mut rows = vec![(Choice::Collapse, collapsed), (Choice::Hide, "Hide the group")];
    if edits.group_name(number).is_some_and(|name| edits.offsets.contains_key(name)) {
        rows.push((Choice::PutBack, "Back to its place"));
    }
    rows
}

/// What an item is called in menus.
fn name(item: Item, edits: &Edits) -> String {
    match item {
        Item::Group(number) => edits.group_name(number).unwrap_or_default().to_string(),
        item => item.to_string(),
    }
}

impl Choice {
    /// Does it with an item.
    pub fn apply(self, ctx: &Context, item: Item, view: &mut View) {
        let flip = |items: &mut BTreeSet<Item>| {
            if !items.remove(&item) {
                items.insert(item);
            }
        };
        match (self, item) {
            (Self::Collapse, Item::Group(number)) => return view.edits.collapse(number),
            (Self::PutBack, Item::Group(number)) => return view.edits.put_back(number),
            (Self::Hide, Item::Group(number)) => return view.edits.hide_group(number),
            _ => {}
        }
        match self {
            Self::Collapse | Self::PutBack => {}
            Self::Pin => flip(&mut view.edits.pinned),
            Self::Hide => flip(&mut view.edits.hidden),
            Self::Follow(trace) => (view.selected, view.trace) = (Some(item), trace),
            Self::Set(becomes) => {
                let Item::Node(node) = item else { return };
                match becomes {
                    Some(becomes) => drop(view.edits.live.settings.insert(node, Setting { becomes, at: None })),
                    None => drop(view.edits.live.settings.remove(&node)),
                }
            }
            Self::CopyName => ctx.copy_text(name(item, &view.edits)),
        }
    }
}

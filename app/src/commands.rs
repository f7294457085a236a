//! The commands: one table for the menus, the keys and the list of keys. A new command is a
//! variant, a row of [`COMMANDS`] and an arm of [`Explorer::run`].

use std::path::PathBuf;

use eframe::egui::{
    Button, ComboBox, Context, Event, Id, Key, KeyboardShortcut, Label, MenuBar, Modifiers, RichText, Role,
    ThemePreference, Ui, ViewportCommand, WidgetInfo, vec2,
};
use gossamer::circuits::{CircuitFormat, FORMATS};

use crate::compared::Compared;
use crate::document::Document;
use crate::explorer::Explorer;
use crate::item::Item;
use crate::runs::JobSpec;
use crate::saving::Save;
use crate::widgets::{code_field_id, trimmed_field_id};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    Open,
    Example,
    SavePng,
    /// The drawing as SVG.
    SaveSvg,
    SaveAnnotations,
    Quit,
    Undo,
    Redo,
    ShowHidden,
    /// Draws the selected group, or that of the selected item, as one box, or its members again.
    CollapseGroup,
    /// Begins to write the selected item's label.
    Label,
    /// Sets the selected node to its mean in prompts, or lets it be again.
    Ablate,
    Find,
    Deselect,
    Fit,
    FitWhole,
    ZoomIn,
    ZoomOut,
    /// Moves the drawing by steps to the right and down.
    Pan(i8, i8),
    LeftPanel,
    RightPanel,
    Timeline,
    /// Opens the tab of that title, and begins to write its prompt.
    Tab(&'static str),
    Help,
    Tour,
    Train,
    FindCircuit,
    Evaluate,
    ShowJob,
}

struct Entry {
    command: Command,
    /// The menu that it is in; none if empty.
    menu: &'static str,
    label: &'static str,
    shortcut: Option<KeyboardShortcut>,
    /// Whether its shortcut also holds while text is edited.
    global: bool,
}

/// A row without a shortcut.
const fn menu(command: Command, menu: &'static str, label: &'static str) -> Entry {
    Entry { command, menu, label, shortcut: None, global: false }
}

/// A row without a menu.
const fn key(command: Command, label: &'static str, modifiers: Modifiers, key: Key) -> Entry {
    menu(command, "", label).with(modifiers, key)
}

impl Entry {
    const fn with(self, modifiers: Modifiers, key: Key) -> Self {
        Self { shortcut: Some(KeyboardShortcut::new(modifiers, key)), ..self }
    }

    const fn global(self) -> Self {
        Self { global: true, ..self }
    }
}

const CTRL: Modifiers = Modifiers::COMMAND;

const COMMANDS: &[Entry] = &[
    menu(Command::Open, "File", "Open…").with(CTRL, Key::O).global(),
    menu(Command::Example, "File", "Example"),
    menu(Command::SavePng, "File", "Save view as PNG"),
    menu(Command::SaveAnnotations, "File", "Save labels and groups").with(CTRL, Key::S).global(),
    menu(Command::Quit, "File", "Quit").with(CTRL, Key::Q).global(),
    menu(Command::Undo, "Edit", "Undo").with(CTRL, Key::Z),
    menu(Command::Redo, "Edit", "Redo").with(CTRL.plus(Modifiers::SHIFT), Key::Z),
    menu(Command::ShowHidden, "Edit", "Show all hidden items"),
    menu(Command::CollapseGroup, "Edit", "Collapse or expand the group").with(Modifiers::NONE, Key::G),
    key(Command::Label, "Write a label", Modifiers::NONE, Key::L),
    key(Command::Ablate, "Ablate the node in prompts, or let it be again", Modifiers::NONE, Key::A),
    key(Command::SaveSvg, "Save the drawing as SVG", CTRL, Key::E).global(),
    key(Command::Find, "Find by name, label or token", CTRL, Key::F).global(),
    key(Command::Deselect, "Select nothing", Modifiers::NONE, Key::Escape),
    menu(Command::Fit, "View", "Fit").with(Modifiers::NONE, Key::Num0),
    menu(Command::FitWhole, "View", "All of it, however small").with(Modifiers::NONE, Key::Num9),
    key(Command::ZoomIn, "Larger", Modifiers::NONE, Key::Plus),
    key(Command::ZoomIn, "Larger", Modifiers::NONE, Key::Equals),
    key(Command::ZoomOut, "Smaller", Modifiers::NONE, Key::Minus),
    key(Command::Pan(1, 0), "Move left", Modifiers::SHIFT, Key::ArrowLeft),
    key(Command::Pan(-1, 0), "Move right", Modifiers::SHIFT, Key::ArrowRight),
    key(Command::Pan(0, 1), "Move up", Modifiers::SHIFT, Key::ArrowUp),
    key(Command::Pan(0, -1), "Move down", Modifiers::SHIFT, Key::ArrowDown),
    menu(Command::LeftPanel, "View", "Left panel"),
    menu(Command::RightPanel, "View", "Right panel"),
    menu(Command::Timeline, "View", "Timeline").with(Modifiers::NONE, Key::T),
    key(Command::Tab("Prompt"), "Write a prompt", Modifiers::NONE, Key::P),
    key(Command::Tab("Bridge"), "Steer through a bridge", Modifiers::NONE, Key::B),
    menu(Command::Train, "Run", "Train…"),
    menu(Command::FindCircuit, "Run", "Find a circuit…"),
    menu(Command::Evaluate, "Run", "Evaluate this circuit"),
    menu(Command::ShowJob, "Run", "Show the job"),
    menu(Command::Tour, "Help", "First steps…"),
    menu(Command::Help, "Help", "Legend, mouse and keys…").with(Modifiers::NONE, Key::F1).global(),
];

impl Explorer {
    fn enabled(&self, command: Command) -> bool {
        let history = self.open.as_ref().map(|open| &open.history);
        match command {
            Command::Undo => history.is_some_and(|history| history.can_undo()),
            Command::Redo => history.is_some_and(|history| history.can_redo()),
            Command::Deselect => !self.focus_elsewhere,
            Command::CollapseGroup => self.selected_group().is_some(),
            Command::Label => self.selected().is_some_and(|item| !matches!(item, Item::Group(_))),
            Command::Ablate => matches!(self.selected(), Some(Item::Node(_))),
            Command::ShowJob => self.runs.has_job(),
            Command::Evaluate => !self.runs.running() && self.evaluable().is_some(),
            _ => true,
        }
    }

    fn selected(&self) -> Option<Item> {
        self.open.as_ref()?.view.selected
    }

    /// The selected group, or that of the selected item.
    fn selected_group(&self) -> Option<usize> {
        let view = &self.open.as_ref()?.view;
        view.edits.group_at(view.selected?)
    }

    /// The open circuit's file and its model's path, if it has nodes.
    fn evaluable(&self) -> Option<(PathBuf, PathBuf)> {
        let document = &self.open.as_ref()?.document;
        let path = document.path.clone().filter(|_| !document.circuit.nodes.is_empty())?;
        Some((path, document.model_path()?))
    }

    /// What a command switches on and off; `None` if it is another kind of command.
    fn switch(&mut self, command: Command) -> Option<&mut bool> {
        match command {
            Command::LeftPanel => Some(&mut self.session.docks.left),
            Command::RightPanel => Some(&mut self.session.docks.right),
            Command::Timeline => self.open.as_mut().map(|open| &mut open.view.timeline),
            _ => None,
        }
    }

    pub(crate) fn run(&mut self, ctx: &Context, command: Command) {
        if let Some(on) = self.switch(command) {
            *on ^= true;
            return;
        }
        let group = self.selected_group();
        match command {
            Command::Open => self.path = Some(String::new()),
            Command::Example => self.start_opening(ctx, None),
            Command::SavePng => self.save_as(Save::Picture),
            Command::SaveSvg => match CircuitFormat::named("svg") {
                Ok(format) => self.save_as(Save::Circuit(format)),
                Err(error) => self.error = Some(error.to_string()),
            },
            Command::Tab(title) => {
                self.session.docks.tab = Some(title);
                start_writing(ctx, code_field_id("prompt"));
            }
            Command::Label => {
                self.session.docks.right = true;
                self.selected().into_iter().for_each(|item| start_writing(ctx, trimmed_field_id("label", item)));
            }
            Command::SaveAnnotations => self.save_as(Save::Annotations),
            Command::Quit => ctx.send_viewport_cmd(ViewportCommand::Close),
            Command::Find => self.search.focus = true,
            Command::Help => self.show_help = true,
            Command::Tour => self.tour = Some(0),
            Command::Train => self.runs.train(),
            Command::FindCircuit => {
                self.runs.find(self.open.as_ref().and_then(|open| open.document.model_path()));
            }
            Command::Evaluate => {
                if let Some((circuit, model)) = self.evaluable() {
                    self.runs.start(ctx, JobSpec::Evaluate { circuit, model });
                }
            }
            Command::ShowJob => self.runs.show_window(),
            _ => {
                let Some(open) = &mut self.open else { return };
                match command {
                    Command::Undo | Command::Redo => open.step = Some(command),
                    Command::ShowHidden => open.view.edits.hidden.clear(),
                    Command::Ablate => {
                        open.view.selected.into_iter().for_each(|item| open.view.edits.ablate(item));
                    }
                    Command::CollapseGroup => {
                        group.into_iter().for_each(|group| open.view.edits.collapse(group));
                        open.view.selected = group.map(Item::Group);
                    }
                    Command::Deselect => open.view.selected = None,
                    Command::Fit => open.camera.fit(),
                    Command::FitWhole => open.camera.fit_whole(),
                    Command::ZoomIn => open.camera.zoom(1.25, None),
                    Command::ZoomOut => open.camera.zoom(0.8, None),
                    Command::Pan(x, y) => open.camera.pan(60.0 * vec2(x.into(), y.into())),
                    _ => {}
                }
            }
        }
    }

    /// Runs the commands whose keys were pressed.
    pub(crate) fn keys(&mut self, ctx: &Context) {
        let editing = ctx.text_edit_focused();
        if self.error.is_some() {
            let pressed = |key| ctx.input_mut(|input| input.consume_key(Modifiers::NONE, key));
            if pressed(Key::Escape) || (!editing && pressed(Key::Enter)) {
                self.error = None;
            }
        }
        // Backwards: a shortcut also matches with more modifiers than its own, and undo comes
        // before redo.
        for entry in COMMANDS.iter().rev().filter(|entry| entry.global || !editing) {
            let enabled = self.enabled(entry.command);
            if let Some(shortcut) = entry.shortcut.filter(|_| enabled)
                && ctx.input_mut(|input| input.consume_shortcut(&shortcut))
            {
                self.run(ctx, entry.command);
            }
        }
    }

    pub(crate) fn menus(&mut self, ui: &mut Ui) {
        MenuBar::new().ui(ui, |ui| {
            for menu in ["File", "Edit", "View", "Run", "Help"] {
                ui.menu_button(menu, |ui| {
                    for entry in COMMANDS.iter().filter(|entry| entry.menu == menu) {
                        self.menu_item(ui, entry);
                    }
                    if menu == "View" {
                        themes(ui);
                    }
                });
            }
            self.runs.status(ui);
            self.choose_circuit(ui);
            if self.opening.is_some() {
                ui.weak("opening …");
            }
            ui.add(Label::new(RichText::new(&self.message).weak()).truncate());
        });
    }

    fn menu_item(&mut self, ui: &mut Ui, entry: &Entry) {
        if matches!(entry.command, Command::SavePng | Command::Quit) {
            ui.separator();
        }
        let ctx = ui.ctx().clone();
        if let Some(on) = self.switch(entry.command) {
            ui.checkbox(on, entry.label);
            return;
        }
        let mut button = Button::new(entry.label);
        if let Some(shortcut) = &entry.shortcut {
            button = button.shortcut_text(ctx.format_shortcut(shortcut));
        }
        let enabled = self.enabled(entry.command);
        let response = ui.add_enabled(enabled, button);
        response.widget_info(|| WidgetInfo::labeled(Role::Button, enabled, entry.label));
        if response.clicked() {
            self.run(&ctx, entry.command);
            ui.close();
        }
        if entry.command == Command::SavePng {
            for format in FORMATS {
                if ui.button(format!("Save as .{}: {}", format.name, format.about)).clicked() {
                    self.save_as(Save::Circuit(format));
                    ui.close();
                }
            }
        }
        if entry.command == Command::Open {
            ui.menu_button("Recent", |ui| {
                for path in self.session.recent.clone() {
                    if ui.button(path.display().to_string()).clicked() {
                        self.start_opening(&ctx, Some(&path));
                        ui.close();
                    }
                }
            });
        }
    }

    /// The circuits of the same folder.
    fn choose_circuit(&mut self, ui: &mut Ui) {
        let Some(open) = &self.open else { return };
        let mut chosen = None;
        ComboBox::from_label("circuit").selected_text(open.document.name()).show_ui(ui, |ui| {
            for path in &open.document.siblings {
                let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
                if ui.selectable_label(open.document.path.as_ref() == Some(path), name).clicked() {
                    chosen = Some(path.clone());
                }
            }
        });
        if let Some(path) = chosen {
            self.start_opening(&ui.ctx().clone(), Some(&path));
        }
        self.choose_compared(ui);
    }

    /// Another circuit of the folder to be drawn next to the open one.
    fn choose_compared(&mut self, ui: &mut Ui) {
        let Some(open) = self.open.as_mut().filter(|open| open.document.siblings.len() > 1) else { return };
        let shown = open.compared.as_ref().map_or_else(|| "nothing".into(), Compared::name);
        let mut chosen = None;
        ComboBox::from_label("compare with").selected_text(shown).show_ui(ui, |ui| {
            if ui.selectable_label(open.compared.is_none(), "nothing").clicked() {
                open.compared = None;
            }
            for path in open.document.siblings.iter().filter(|path| open.document.path.as_ref() != Some(path)) {
                let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
                if ui.selectable_label(false, name).clicked() {
                    chosen = Some(path.clone());
                }
            }
        });
        match chosen.map(|path| Document::open(&path)) {
            Some(Ok(document)) => open.compared = Some(Compared::new(document)),
            Some(Err(error)) => self.error = Some(format!("{error:#}")),
            None => {}
        }
    }
}

/// Moves the focus to a text, which does not get the letter of the shortcut.
fn start_writing(ctx: &Context, field: Id) {
    ctx.input_mut(|input| input.events.retain(|event| !matches!(event, Event::Text(_))));
    ctx.memory_mut(|memory| memory.request_focus(field));
}

/// The keys of all commands, and what they do.
pub fn shortcuts(ctx: &Context) -> Vec<(String, &'static str)> {
    let keys = |entry: &Entry| entry.shortcut.map(|shortcut| (ctx.format_shortcut(&shortcut), entry.label));
    COMMANDS.iter().filter_map(keys).collect()
}

/// The toolkit's own buttons have emoji for names, which its fonts lack.
fn themes(ui: &mut Ui) {
    let themes = [
        (ThemePreference::System, "as the system"),
        (ThemePreference::Light, "light"),
        (ThemePreference::Dark, "dark"),
    ];
    for (theme, name) in themes {
        if ui.radio(ui.ctx().options(|options| options.theme_preference) == theme, name).clicked() {
            ui.ctx().set_theme(theme);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::COMMANDS;

    #[test]
    fn no_two_commands_have_one_shortcut() {
        for (i, entry) in COMMANDS.iter().enumerate().filter(|(_, entry)| entry.shortcut.is_some()) {
            let other = COMMANDS[..i].iter().find(|other| other.shortcut == entry.shortcut);
            assert!(other.is_none(), "{}", entry.label);
        }
    }
}

//! `train --settings`, the presets' names, and the way from an option that does not exist to a
//! setting that does.

use std::collections::BTreeMap;
use std::io::Write;

use crate::circuits::prune;
use crate::settings::{SettingRow, suggestion};
use crate::train::config::{RunConfig, leaves};
use crate::train::presets;
use crate::train::settings::rows;
use anyhow::Result;
use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Writes every setting with its value in `config`, what it may be and what it means.
pub fn print(config: &RunConfig) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let mut shown = config.clone();
    shown.bridge.get_or_insert_default();
    writeln!(
        out,
        "`train --set KEY=VALUE`; what stands before the last dot can be left out where no other setting has the name"
    )?;
    section(&mut out, &rows(), toml::Table::try_from(&shown)?)?;
    writeln!(out, "\n`train circuit --set KEY=VALUE`")?;
    section(&mut out, &prune::SearchSettings::rows(), toml::Table::try_from(prune::SearchSettings::default())?)
}

/// The names of the presets, for the help.
pub fn presets() -> String {
    let names = presets::names().unwrap_or_default();
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => names.concat(),
    }
}

fn section(out: &mut impl Write, rows: &[SettingRow], table: toml::Table) -> Result<()> {
    let values: BTreeMap<String, String> =
        leaves(table).into_iter().map(|(key, value)| (key, value.to_string())).collect();
    // What other settings leave out has its default.
    let absent = |row: &SettingRow| if row.optional { "none" } else { "default" };
    let value = |row: &SettingRow| values.get(&row.key).map_or(absent(row), String::as_str).to_string();
    let width = |cell: &dyn Fn(&SettingRow) -> usize| rows.iter().map(cell).max().unwrap_or(0);
    let (keys, each) = (width(&|row| row.key.len()), width(&|row| value(row).len().min(24)));
    for row in rows {
        let or = if row.optional { ", or none" } else { "" };
        writeln!(out, "  {:keys$}  {:each$}  {}{or}; {}", row.key, value(row), row.takes, row.about)?;
    }
    Ok(())
}

/// What to try instead, where an option that does not exist is really a setting.
pub fn advice(error: &clap::Error) -> Option<String> {
    let unknown = match (error.kind(), error.get(ContextKind::InvalidArg)) {
        (ErrorKind::UnknownArgument, Some(ContextValue::String(name))) => name.trim_start_matches('-').to_string(),
        _ => return None,
    };
    let all: Vec<String> = rows().into_iter().map(|row| row.key).collect();
    let key = suggestion(&unknown, all.iter().map(String::as_str))?;
    Some(format!("\n`{key}` is a setting: --set {key}=VALUE"))
}

//! Settings: what each may be, how `KEY=VALUE` is read, and which name was meant.
//!
//! Every group of settings has one table of [`Setting`]s. Validation, the reading of `--set`, the
//! list that `train --settings` prints and the messages all take their ranges from it.

mod assign;
mod names;

use std::fmt;
use std::ops::{Bound, RangeBounds};

pub use assign::{assign, split};
pub(crate) use assign::{parts, put, value};
pub use names::suggestion;
pub(crate) use names::unknown;

use crate::{Error, Result};

/// What a setting may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Takes {
    /// A finite number within these bounds.
    Number(Bound<f64>, Bound<f64>),
    /// Two finite numbers within these bounds.
    Pair(Bound<f64>, Bound<f64>),
    /// A whole number from the first to the second.
    Count(u64, u64),
    /// True or false.
    Flag,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Text; the words say which.
    Text(&'static str),
    /// A list of texts.
    Texts(&'static str),
}

/// Numbers above `low`, up to and with `high`.
pub const fn above(low: f64, high: f64) -> Takes {
    Takes::Number(Bound::Excluded(low), Bound::Included(high))
}

/// Numbers from `low` to `high`, both included.
pub const fn within(low: f64, high: f64) -> Takes {
    Takes::Number(Bound::Included(low), Bound::Included(high))
}

/// Numbers from `low` on that are less than `high`.
pub(crate) const fn below(low: f64, high: f64) -> Takes {
    Takes::Number(Bound::Included(low), Bound::Excluded(high))
}

/// Numbers between `low` and `high`, neither included.
pub(crate) const fn between(low: f64, high: f64) -> Takes {
    Takes::Number(Bound::Excluded(low), Bound::Excluded(high))
}

impl Takes {
    /// Whether `value` is one of the numbers.
    pub(crate) fn has(&self, value: f64) -> bool {
        match *self {
            Self::Number(low, high) | Self::Pair(low, high) => value.is_finite() && (low, high).contains(&value),
            Self::Count(least, most) => value >= least as f64 && value <= most as f64 && value.fract() == 0.0,
            _ => false,
        }
    }
}

/// What is expected, as in "`x` is not …".
impl fmt::Display for Takes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(low, high) => write!(f, "a number {}", interval(*low, *high)),
            Self::Pair(low, high) => write!(f, "[a, b], two numbers {}", interval(*low, *high)),
            Self::Count(least, most) if least == most => f.write_str(&grouped(*least)),
            Self::Count(least, most) => write!(f, "a whole number from {} to {}", grouped(*least), grouped(*most)),
            Self::Flag => f.write_str("true or false"),
            Self::OneOf(words) => write!(f, "one of {}", words.join(", ")),
            Self::Text(what) | Self::Texts(what) => f.write_str(what),
        }
    }
}

fn interval(low: Bound<f64>, high: Bound<f64>) -> String {
    let plain = |v: f64| format!("{v:?}").trim_end_matches(".0").to_string();
    let from = match low {
        Bound::Included(v) => format!("from {}", plain(v)),
        Bound::Excluded(v) => format!("above {}", plain(v)),
        Bound::Unbounded => "of any size".into(),
    };
    match (low, high) {
        (Bound::Included(_), Bound::Included(v)) => format!("{from} to {}", plain(v)),
        (_, Bound::Included(v)) => format!("{from}, up to {}", plain(v)),
        (_, Bound::Excluded(v)) => format!("{from}, below {}", plain(v)),
        (_, Bound::Unbounded) => from,
    }
}

/// A whole number with its digits in groups of three.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The number that a setting is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SettingValue {
    /// A number, whole or not.
    Number(f64),
    /// Two numbers.
    Pair(f64, f64),
    /// A whole number.
    Count(u64),
    /// An optional setting that is not set, or one that is no number.
    Absent,
}

impl From<f64> for SettingValue {
    fn from(value: f64) -> Self {
        Self::Number(value)
    }
}

impl From<(f64, f64)> for SettingValue {
    fn from((a, b): (f64, f64)) -> Self {
        Self::Pair(a, b)
    }
}

impl From<u64> for SettingValue {
    fn from(value: u64) -> Self {
        Self::Count(value)
    }
}

impl From<usize> for SettingValue {
    fn from(value: usize) -> Self {
        Self::Count(value as u64)
    }
}

impl<T: Into<SettingValue>> From<Option<T>> for SettingValue {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Absent, Into::into)
    }
}

/// One setting in the table of a group, whose values are kept in a `C`.
pub struct Setting<C> {
    /// Its name in the group, such as `lr`.
    pub name: &'static str,
    /// What it may be.
    pub takes: Takes,
    /// Whether it may be absent, which `none` makes it.
    pub optional: bool,
    /// What it means, in a line.
    pub about: &'static str,
    /// Its number.
    pub get: fn(&C) -> SettingValue,
}

/// A setting by its full name, such as `train.lr`.
#[derive(Clone, Debug, PartialEq)]
pub struct SettingRow {
    /// The full name.
    pub key: String,
    /// What it may be.
    pub takes: Takes,
    /// Whether it may be absent, which `none` makes it.
    pub optional: bool,
    /// What it means, in a line.
    pub about: &'static str,
}

impl<C> Setting<C> {
    /// A setting that is a number.
    pub(crate) const fn number(
        name: &'static str,
        takes: Takes,
        about: &'static str,
        get: fn(&C) -> SettingValue,
    ) -> Self {
        Self { name, takes, optional: false, about, get }
    }

    /// A setting that is no number.
    pub(crate) const fn other(name: &'static str, takes: Takes, about: &'static str) -> Self {
        Self { name, takes, optional: false, about, get: |_| SettingValue::Absent }
    }

    /// Returns an error unless the number is one that the setting may be. `section` stands before
    /// its name, if it is not empty.
    ///
    /// # Errors
    /// [`Error::Config`] naming the setting.
    pub fn check(&self, section: &str, config: &C) -> Result<()> {
        let wrong =
            |value: String| Err(Error::config(key(section, self.name), format!("{value} is not {}", self.takes)));
        match (self.takes, (self.get)(config)) {
            (_, SettingValue::Absent) => Ok(()),
            (Takes::Count(least, most), SettingValue::Count(n)) if (least..=most).contains(&n) => Ok(()),
            (_, SettingValue::Count(n)) => wrong(n.to_string()),
            (takes, SettingValue::Number(v)) if takes.has(v) => Ok(()),
            (_, SettingValue::Number(v)) => wrong(v.to_string()),
            (takes, SettingValue::Pair(a, b)) if takes.has(a) && takes.has(b) => Ok(()),
            (_, SettingValue::Pair(a, b)) => wrong(format!("[{a}, {b}]")),
        }
    }
}

/// The setting, if it may also be absent.
pub(crate) const fn optional<C>(setting: Setting<C>) -> Setting<C> {
    Setting { optional: true, ..setting }
}

/// The setting that is the number in the field of its name.
macro_rules! numeric {
    ($name:ident, $takes:expr, $about:expr) => {
        $crate::settings::Setting::number(stringify!($name), $takes, $about, |c| c.$name.into())
    };
}

pub(crate) use numeric;

/// Returns an error unless every number of `config` is one that its setting may be. `section`
/// stands before the names, if it is not empty.
///
/// # Errors
/// [`Error::Config`] naming the first setting that is not.
pub fn check<C>(section: &str, table: &[Setting<C>], config: &C) -> Result<()> {
    table.iter().try_for_each(|setting| setting.check(section, config))
}

/// The settings of a group by their full names.
pub(crate) fn rows<C>(section: &str, table: &[Setting<C>]) -> Vec<SettingRow> {
    let row =
        |s: &Setting<C>| SettingRow { key: key(section, s.name), takes: s.takes, optional: s.optional, about: s.about };
    table.iter().map(row).collect()
}

fn key(section: &str, name: &str) -> String {
    if section.is_empty() { name.into() } else { format!("{section}.{name}") }
}

/// Reads an option of a command line that is a whole number from `least` to `most`.
pub fn count<T: TryFrom<u64> + Clone>(
    least: u64,
    most: u64,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static {
    move |text| {
        let number = text.trim().replace('_', "").parse::<u64>().ok().filter(|n| (least..=most).contains(n));
        let wrong = || format!("`{text}` is not {}", Takes::Count(least, most));
        number.and_then(|n| T::try_from(n).ok()).ok_or_else(wrong)
    }
}

/// Reads an option of a command line that is a number, of those that `takes` has.
pub fn number(takes: Takes) -> impl Fn(&str) -> Result<f64, String> + Clone + Send + Sync + 'static {
    move |text| {
        let value = text.trim().parse::<f64>().ok().filter(|v| takes.has(*v));
        value.ok_or_else(|| format!("`{text}` is not {takes}"))
    }
}

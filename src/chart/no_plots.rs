//! Charts of a program that was built without them.

use super::{Bars, Chart};
use crate::{Error, Result};

fn missing<T>() -> Result<T> {
    Err(Error::Drawing("this program was built without charts: build it with `--features plots`".into()))
}

pub(super) fn chart(_: &Chart, _: f64, _: f64) -> Result<String> {
    missing()
}

pub(super) fn bars(_: &Bars) -> Result<String> {
    missing()
}

pub(super) fn png(_: &str) -> Result<Vec<u8>> {
    missing()
}

pub(super) fn pdf(_: &str, _: &str) -> Result<Vec<u8>> {
    missing()
}

//! Charts of a program that was built without them.

use super::{Bars, Chart};
use crate::{Error, Result};

fn missing() -> Error {
    Error::Drawing("this program was built without charts: build it with `--features plots`".into())
}

pub(super) fn chart(_: &Chart, _: u32, _: u32) -> Result<Vec<u8>> {
    Err(missing())
}

pub(super) fn bars(_: &Bars) -> Result<Vec<u8>> {
    Err(missing())
}
